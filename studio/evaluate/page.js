// Headings become buttons that sort by their column; what is no number comes last, the truth stays on top.
for (const table of document.querySelectorAll("table")) {
  const rows = table.tBodies[table.tBodies.length - 1];
  [...table.tHead.rows[0].cells].forEach((head, column, heads) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const order = head.ariaSort === "descending" ? "ascending" : "descending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const key = row => row.cells[column].textContent;
      const compare = (a, b) => {
        const [p, q] = [parseFloat(key(a)), parseFloat(key(b))];
        if (isNaN(p) && isNaN(q)) return key(b).localeCompare(key(a)) * (order === "ascending" ? -1 : 1);
        if (isNaN(p) || isNaN(q)) return isNaN(p) - isNaN(q);
        return order === "ascending" ? p - q : q - p;
      };
      rows.append(...[...rows.rows].sort(compare));
    };
  });
}
