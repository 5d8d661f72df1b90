// The timeline: one lane for each object, and the way through the video.

import { clamp, h, timeText } from "./dom.js";
import { drawnWhenChanged, refill } from "./parts.js";
import { timelineBar } from "./timeline_bar.js";
import { LANE, MARGIN, RULER, codesOf, drawLanes, drawOver } from "./timeline_draw.js";
import { listenToPointers } from "./timeline_input.js";

const LEAST_SPAN = 12; // frames that the closest view shows
const MOST_LANES = 5; // without scrolling

export function mountTimeline(element, store, api) {
  const { num_frames: numFrames, fps } = store.state;
  const view = { first: 0, span: numFrames, width: 1, top: 0, hover: null };
  const codes = new Map(); // object id → (num_frames,) states as numbers, see `codesOf`
  element.replaceChildren();

  // ---- parts ----

  const base = h("canvas", { "aria-hidden": "true" });
  const over = h("canvas", { "aria-hidden": "true", class: "timeline-over" });
  const tip = h("div", { class: "timeline-tip", hidden: true, "aria-hidden": "true" });
  const chart = h(
    "div",
    {
      class: "timeline-chart",
      role: "slider",
      tabindex: 0,
      "aria-label": "Frame",
      "aria-valuemin": 0,
      "aria-valuemax": numFrames - 1,
      "data-test": "timeline-chart",
    },
    base,
    over,
    tip,
  );
  const labels = h("div", {
    class: "timeline-labels",
    "data-test": "timeline-labels",
    onscroll: () => ((view.top = labels.scrollTop), request()),
  });
  const spacer = h("div", {});
  const scroller = h("div", { class: "timeline-scroll", hidden: true, onscroll: () => followScroll() }, spacer);
  const lanes = h("div", { class: "timeline-lanes" }, labels, chart, scroller);
  const bar = timelineBar(store, {
    zoom: (factor) => zoom(factor),
    fit: () => setView(0, numFrames),
    fold(isFolded) {
      lanes.hidden = isFolded;
      resize();
    },
  });
  element.append(bar, lanes);

  // ---- the view in time ----

  function setView(first, span) {
    view.span = clamp(span, Math.min(LEAST_SPAN, numFrames), numFrames);
    view.first = clamp(first, 0, numFrames - view.span);
    scroller.hidden = view.span >= numFrames;
    if (!scroller.hidden) {
      spacer.style.width = `${(view.width * numFrames) / view.span}px`;
      scroller.scrollLeft = (view.first / view.span) * view.width;
    }
    request();
  }

  function followScroll() {
    const first = (scroller.scrollLeft / view.width) * view.span;
    if (Math.abs(first - view.first) * view.width < 1.5 * view.span) return; // that is what `setView` set
    view.first = clamp(first, 0, numFrames - view.span);
    request();
  }

  /** Show `factor` times as many frames, the one at `x` staying where it is; without it, the current one. */
  function zoom(factor, x = clamp(((store.frame + 0.5 - view.first) / view.span) * view.width, 0, view.width)) {
    const at = view.first + (x / view.width) * view.span;
    const span = clamp(view.span * factor, Math.min(LEAST_SPAN, numFrames), numFrames);
    setView(at - (x / view.width) * span, span);
  }

  /** Keep the current frame in view. */
  function reveal() {
    const at = store.frame + 0.5;
    if (at < view.first || at > view.first + view.span) setView(at - (at < view.first ? 0.8 : 0.2) * view.span, view.span);
  }

  // ---- drawing ----

  let isRequested = false;
  let isBaseOld = true;

  /** Draw before the next picture of the screen; `all` false for what moves with the pointer and the frame alone. */
  function request(all = true) {
    isBaseOld ||= all;
    if (isRequested) return;
    isRequested = true;
    requestAnimationFrame(() => {
      isRequested = false;
      if (lanes.hidden || !chart.isConnected) return;
      const shown = { ...view, height: chart.clientHeight, store, codes };
      if (isBaseOld) drawLanes(fitted(base), shown, chart);
      drawOver(fitted(over), shown, chart);
      isBaseOld = false;
    });
  }

  function fitted(canvas) {
    const ratio = devicePixelRatio || 1;
    const [width, height] = [Math.round((view.width + 2 * MARGIN) * ratio), Math.round(chart.clientHeight * ratio)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, MARGIN * ratio, 0);
    context.clearRect(-MARGIN, 0, view.width + 2 * MARGIN, chart.clientHeight);
    return context;
  }

  function resize() {
    const { objects } = store.state;
    const room = Math.floor((0.32 * innerHeight - RULER - 44) / LANE);
    const shown = clamp(objects.length, 1, clamp(room, 2, MOST_LANES));
    lanes.style.height = `${RULER + shown * LANE + 4}px`;
    view.width = Math.max(1, chart.clientWidth);
    setView(view.first, view.span);
  }

  function drawLabels() {
    const { objects } = store.state;
    refill(
      labels,
      h("div", { class: "timeline-corner muted" }, objects.length ? "" : "No objects yet"),
      objects.map((object) =>
        h(
          "button",
          {
            type: "button",
            class: "timeline-label",
            "aria-pressed": String(object.id === store.selected),
            style: { "--object": object.color },
            title: object.name,
            "data-key": `lane-${object.id}`,
            "data-test": `lane-${object.id}`,
            onclick: () => store.select(object.id),
          },
          h("span", { class: "swatch" }),
          h("span", { class: "timeline-name" }, object.name),
        ),
      ),
    );
    resize();
  }

  function readTimeline() {
    codes.clear();
    for (const [id, { states }] of Object.entries(store.timeline?.objects ?? {}))
      codes.set(Number(id), codesOf(states, numFrames));
    request();
  }

  function sayFrame() {
    chart.setAttribute("aria-valuenow", store.frame);
    chart.setAttribute("aria-valuetext", `Frame ${store.frame}, ${timeText(store.frame, fps)}`);
  }

  // ---- what happens ----

  chart.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 10 : 1;
    const second = Math.max(1, Math.round(fps));
    const to = {
      ArrowLeft: store.frame - step,
      ArrowDown: store.frame - step,
      ArrowRight: store.frame + step,
      ArrowUp: store.frame + step,
      PageDown: store.frame - second,
      PageUp: store.frame + second,
      Home: 0,
      End: numFrames - 1,
    }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (to !== undefined) store.setFrame(to);
    else if (event.key === "+" || event.key === "=") zoom(0.5);
    else if (event.key === "-") zoom(2);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  listenToPointers(chart, tip, { store, api, view, codes, setView, zoom, request });

  for (const name of ["range", "timeline"]) store.on(name, () => request());
  store.on("timeline", readTimeline);
  store.on("selected", () => {
    drawLabels();
    labels.querySelector("[aria-pressed=true]")?.scrollIntoView({ block: "nearest" });
  });
  store.on(
    "state",
    drawnWhenChanged(
      () => store.state.objects.map(({ id, name, color, given, is_hidden: isHidden }) => [id, name, color, given, isHidden]),
      drawLabels,
    ),
  );
  store.on("frame", () => {
    sayFrame();
    reveal();
    request(false);
  });
  const observers = [new ResizeObserver(() => resize()), new MutationObserver(() => request())];
  observers[0].observe(chart);
  observers[1].observe(element.closest("[data-theme]") ?? document.body, { attributes: true, attributeFilter: ["data-theme"] });
  store.on("closed", () => observers.forEach((observer) => observer.disconnect()));
  sayFrame();
  drawLabels();
  readTimeline();
}
