for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => header.querySelector("button").addEventListener("click", () => {
    const descending = header.getAttribute("aria-sort") ? header.getAttribute("aria-sort") === "ascending" : column > 0;
    headers.forEach(other => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const key = ({cells: {[column]: cell}}) => "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent.trim().toLowerCase();
    const rows = [...table.tBodies[0].rows].sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0));
    table.tBodies[0].append(...(descending ? rows.reverse() : rows));
  }));
}
