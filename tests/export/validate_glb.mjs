// Runs the Khronos glTF validator over .glb files: node validate_glb.mjs FILE...
// Needs gltf-validator in the working folder's node_modules; `make validate-glb` does it all.
// Exits 1 on any error or warning.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const validator = createRequire(join(process.cwd(), "package.json"))("gltf-validator");
let clean = true;
for (const path of process.argv.slice(2)) {
  const { issues } = await validator.validateBytes(new Uint8Array(readFileSync(path)));
  const { numErrors, numWarnings, numInfos, numHints, messages } = issues;
  console.log(`${path}: ${numErrors} errors, ${numWarnings} warnings, ${numInfos} infos, ${numHints} hints`);
  for (const { code, message, pointer } of messages) console.log(`  ${code} ${pointer}: ${message}`);
  clean &&= numErrors === 0 && numWarnings === 0;
}
process.exit(clean ? 0 : 1);
