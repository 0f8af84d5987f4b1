"use strict";
// What the page adds when scripts run: trial thresholds, search, sorted tables, a close-up of a clip.
// All text that comes from data goes in as textContent, never as markup.
document.documentElement.classList.add("js");

const format = (number) => Number(number.toPrecision(3)).toLocaleString("en");
const duration = (seconds) =>
  seconds >= 3600 ? `${format(seconds / 3600)} h` : seconds >= 60 ? `${format(seconds / 60)} min` : `${format(seconds)} s`;
const clips = (count) => `${count.toLocaleString("en")} clip${count === 1 ? "" : "s"}`;

for (const score of document.querySelectorAll(".score")) {
  const edges = JSON.parse(score.dataset.edges);
  score.querySelectorAll(".trial[data-index]").forEach((trial, cut) => {
    const input = trial.querySelector("input");
    const [label, command, output] = ["b", "code", "output"].map((name) => trial.querySelector(name));
    const [labelNow, outputNow] = [label.textContent, [...output.childNodes]];
    const line = score.querySelector(`.line.trial[data-cut="${cut}"]`);
    const changes = JSON.parse(trial.dataset.changes);
    const now = Number(trial.dataset.index);

    const show = () => {
      const at = Number(input.value);
      const value = Number(edges[at].toPrecision(4));
      line.hidden = at === now;
      line.style.left = `${(100 * at) / (edges.length - 1)}%`;
      input.setAttribute("aria-valuetext", `${value}`);
      if (at === now) {
        label.textContent = labelNow;
        command.textContent = "";
        output.replaceChildren(...outputNow);
        return;
      }
      const parts = [];
      if (changes.lost[at]) parts.push(`loses ${clips(changes.lost[at])} (${duration(changes.lost_s[at])})`);
      if (changes.gained[at]) parts.push(`gains up to ${clips(changes.gained[at])} (${duration(changes.gained_s[at])})`);
      label.textContent = `${labelNow} → ${value}`;
      command.textContent = trial.dataset.key && `filters.${trial.dataset.key}=${value}`;
      output.textContent = parts.join(", ") || "changes nothing";
    };
    input.addEventListener("input", show);
    input.addEventListener("dblclick", () => {
      input.value = now;
      show();
    });
    show();
  });
}

document.getElementById("find").addEventListener("input", (event) => {
  const wanted = event.target.value.trim().toLowerCase();
  for (const clip of document.querySelectorAll("#clips .clip")) {
    const text = (factsOf(clip).join(" ") + clip.textContent).toLowerCase();
    clip.hidden = !text.includes(wanted);
  }
  for (const sheet of document.querySelectorAll(".sheet")) {
    sheet.hidden = wanted !== "" && !sheet.querySelector(".clip:not([hidden])");
  }
});

for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead th").forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const direction = heading.getAttribute("aria-sort") === "descending" ? "ascending" : "descending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", direction);
      const sign = direction === "ascending" ? 1 : -1;
      const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
      const order = (a, b) => key(a).localeCompare(key(b), "en", { numeric: true });
      const numbers = (a, b) => Number(key(a)) - Number(key(b));
      const body = table.tBodies[0];
      const compare = body.rows[0]?.cells[column].dataset.sort === undefined ? order : numbers;
      body.append(...[...body.rows].sort((a, b) => sign * compare(a, b)));
    });
  });
}

const facts = JSON.parse(document.getElementById("facts").textContent);
const closeUp = document.getElementById("close-up");
let shown = null;

function factsOf(clip) {
  return facts.clips[clip.dataset.row].map((value) => value ?? "");
}

function open(clip) {
  shown = clip;
  const picture = clip.querySelector(".strip").firstElementChild.cloneNode(true);
  closeUp.querySelector(".big").replaceChildren(picture);
  closeUp.querySelector("h2").textContent = clip.querySelector("bdi").textContent;
  const rows = facts.labels.map((label, index) => [label, facts.clips[clip.dataset.row][index]]);
  closeUp.querySelector("dl").replaceChildren(
    ...rows
      .filter(([, value]) => value !== null)
      .map(([label, value]) => {
        const row = document.createElement("div");
        const term = document.createElement("dt");
        const detail = document.createElement("dd");
        term.textContent = label;
        detail.textContent = value;
        row.append(term, detail);
        return row;
      }),
  );
  if (!closeUp.open) closeUp.showModal();
}

function step(by) {
  const all = [...document.querySelectorAll(".clip")].filter((clip) => clip.offsetParent !== null);
  open(all[(all.indexOf(shown) + by + all.length) % all.length]);
}

document.addEventListener("click", (event) => {
  const strip = event.target.closest(".strip");
  if (strip) open(strip.closest(".clip"));
  if (event.target === closeUp || event.target.closest("[data-close]")) closeUp.close();
  const arrow = event.target.closest("[data-step]");
  if (arrow) step(Number(arrow.dataset.step));
});
closeUp.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
closeUp.addEventListener("close", () => shown?.querySelector(".strip").focus());
