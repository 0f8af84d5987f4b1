"use strict";
// What the page adds when scripts run: point at a chart, and every line's key says its value at that step.
document.documentElement.classList.add("js");

const format = (value) => (Math.abs(value) >= 1e-4 || value === 0 ? Number(value.toPrecision(4)).toString() : value.toExponential(2));

function nearest(points, step) {
  let [low, high] = [0, points.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] <= step) low = middle;
    else high = middle;
  }
  return Math.abs(points[low][0] - step) <= Math.abs(points[high][0] - step) ? points[low] : points[high];
}

for (const plot of document.querySelectorAll(".plot[data-lines]")) {
  const frame = plot.querySelector(".frame");
  const lines = JSON.parse(plot.dataset.lines);
  const [first, last] = JSON.parse(plot.dataset.steps);
  const values = [...plot.querySelectorAll(".keys b")];
  const before = values.map((value) => value.textContent);
  const pointer = frame.querySelector(".pointer");

  frame.addEventListener("pointermove", (event) => {
    const box = frame.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    const step = Math.round(first + share * (last - first));
    pointer.hidden = false;
    pointer.style.left = `${100 * share}%`;
    pointer.classList.toggle("left", share > 0.7);
    pointer.firstElementChild.textContent = `step ${step.toLocaleString("en")}`;
    lines.forEach((points, line) => {
      if (points.length) values[line].textContent = format(nearest(points, step)[1]);
    });
  });
  frame.addEventListener("pointerleave", () => {
    pointer.hidden = true;
    values.forEach((value, line) => (value.textContent = before[line]));
  });
}
