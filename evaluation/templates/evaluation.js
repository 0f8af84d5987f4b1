"use strict";
// What the page adds when scripts run: tables that sort by a column, one video that plays at a time.
document.documentElement.classList.add("js");

document.addEventListener("play", (event) => {
  const pair = event.target.closest(".players");
  for (const other of document.querySelectorAll("video"))
    if (other !== event.target && other.closest(".players") !== pair) other.pause();
}, true);

for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead th").forEach((heading, column) => {
    const button = document.createElement("button");
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") !== "descending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const body = table.tBodies[0];
      const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
      const numeric = body.rows[0]?.cells[column].dataset.sort !== undefined;
      const number = (text) => (text === "" ? -Infinity : Number(text));
      const compare = (a, b) => (numeric ? number(key(a)) - number(key(b)) : key(a).localeCompare(key(b)));
      body.append(...[...body.rows].sort((a, b) => (down ? -1 : 1) * compare(a, b)));
    });
  });
}
