# Fails on a weak symbol outside studio::ISA: the linker could put this copy's instructions into the others.
execute_process(COMMAND ${NM} -C ${OBJECTS} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
string(REPLACE "\n" ";" symbols "${symbols}")
list(FILTER symbols INCLUDE REGEX " [WVu] ")
list(FILTER symbols EXCLUDE REGEX "studio::${ISA}::|DW\\.ref|__asan|__ubsan|__odr_asan")
if(symbols)
  message(FATAL_ERROR "Weak symbols shared between instruction sets: ${symbols}")
endif()
