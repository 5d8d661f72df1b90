// What the patterns and marks of the timeline mean.

import { h } from "./dom.js";
import { drawBarrier, drawCut, drawRound, drawState } from "./timeline_marks.js";

const SAMPLES = [
  ["seen", "Seen; the line is how sure"],
  ["guessed", "Guessed between two sights"],
  ["hidden", "Hidden, seen again later"],
  ["lost", "Lost, not seen any more"],
  ["barrier", "Given, corrected or pinned: a barrier that tracking keeps"],
  ["round", "Here the words were looked for"],
  ["cut", "The scene changes"],
];
const [WIDTH, HEIGHT] = [44, 20];

function sample(name, element) {
  const canvas = h("canvas", { width: 2 * WIDTH, height: 2 * HEIGHT, class: "legend-sample", "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  const style = getComputedStyle(element);
  const color = (variable) => style.getPropertyValue(variable).trim();
  context.scale(2, 2);
  if (name === "barrier") {
    drawState(context, "seen", color("--accent"), 0, 0, WIDTH, HEIGHT);
    drawBarrier(context, color("--accent"), color("--surface"), WIDTH / 2, 0, HEIGHT);
  } else if (name === "round") {
    drawRound(context, WIDTH / 2, HEIGHT - 5, color("--accent"));
  } else if (name === "cut") {
    drawCut(context, WIDTH / 2, 0, HEIGHT, color("--border-strong"));
  } else {
    drawState(context, name, color("--accent"), 0, 0, WIDTH, HEIGHT);
    if (name === "seen") {
      context.strokeStyle = color("--accent");
      context.lineWidth = 1.75;
      context.stroke(new Path2D(`M0 6 L12 4 L20 9 L28 5 L${WIDTH} 4`));
    }
  }
  return canvas;
}

/** A button that shows and hides the legend. */
export function legend() {
  const list = h("dl", { class: "legend", hidden: true, id: "timeline-legend", "data-test": "legend" });
  const button = h(
    "button",
    {
      type: "button",
      class: "icon-button",
      "aria-label": "What the lanes show",
      title: "What the lanes show",
      "aria-expanded": "false",
      "aria-controls": list.id,
      "data-test": "show-legend",
      onclick: () => show(list.hidden),
    },
    "?",
  );
  const place = h(
    "div",
    {
      class: "legend-place",
      onkeydown: (event) => event.key === "Escape" && !list.hidden && (event.stopPropagation(), show(false)),
    },
    button,
    list,
  );
  const pressedOutside = (event) => !place.contains(event.target) && show(false);
  function show(isShown) {
    if (isShown) document.addEventListener("pointerdown", pressedOutside);
    else document.removeEventListener("pointerdown", pressedOutside);
    list.hidden = !isShown;
    button.setAttribute("aria-expanded", String(isShown));
    if (isShown)
      list.replaceChildren(...SAMPLES.flatMap(([name, text]) => [h("dt", {}, sample(name, place)), h("dd", {}, text)]));
  }
  return place;
}
