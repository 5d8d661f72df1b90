// Pointers on the timeline: scrub, drag the ends of the range, zoom with the wheel or two fingers, look at what is where.

import { clamp, h, timeText } from "./dom.js";
import { LANE, RULER, stateName } from "./timeline_draw.js";

const WORDS = { seen: "seen", guessed: "guessed", hidden: "hidden", lost: "lost", corrected: "given or corrected" };
const TIP_WIDTH = 160; // CSS pixels
const PICTURE_WAIT = 90; // milliseconds that the pointer rests before a picture is fetched

/** @param parts {store, api, view, codes, setView(first, span), zoom(factor, x), request(all)} of the timeline. */
export function listenToPointers(chart, tip, { store, api, view, codes, setView, zoom, request }) {
  const { num_frames: numFrames, fps, width: videoWidth, height: videoHeight } = store.state;
  const pointers = new Map(); // id → x
  let dragged = null; // "frame", "first", "last" or "pinch"
  let pinch = null;
  let timer = 0;
  let next = null;

  const xOf = (event) => event.clientX - chart.getBoundingClientRect().left;
  const frameAt = (x) => clamp(Math.floor(view.first + (x / view.width) * view.span), 0, numFrames - 1);

  /** The end of the range at a place in the ruler, or null. */
  function endAt(event) {
    if (!store.range || event.clientY - chart.getBoundingClientRect().top > RULER) return null;
    const reach = event.pointerType === "mouse" ? 7 : 16;
    const x = xOf(event);
    const places = { first: store.range.first, last: store.range.last + 1 };
    const near = Object.entries(places).map(([end, frame]) => [
      end,
      Math.abs(((frame - view.first) / view.span) * view.width - x),
    ]);
    near.sort((one, other) => one[1] - other[1]);
    return near[0][1] <= reach ? near[0][0] : null;
  }

  /** Go to a frame, at most once for each picture of the screen. */
  function scrub(frame) {
    if (next === null)
      requestAnimationFrame(() => {
        const to = next;
        next = null;
        if (to !== store.frame) store.setFrame(to);
      });
    next = frame;
  }

  function drag(event) {
    const x = xOf(event);
    if (dragged === "frame") return scrub(frameAt(x));
    const edge = Math.round(view.first + (x / view.width) * view.span);
    const range = { ...store.range };
    if (dragged === "first") range.first = clamp(edge, 0, range.last);
    else range.last = clamp(edge - 1, range.first, numFrames - 1);
    store.setRange(range);
    showTip(event, range[dragged]);
  }

  function startPinch() {
    const [one, other] = [...pointers.values()];
    dragged = "pinch";
    pinch = {
      gap: Math.max(20, Math.abs(one - other)),
      span: view.span,
      at: view.first + ((one + other) / 2 / view.width) * view.span,
    };
  }

  function movePinch() {
    const [one, other] = [...pointers.values()];
    const span = clamp((pinch.span * pinch.gap) / Math.max(20, Math.abs(one - other)), 1, numFrames);
    setView(pinch.at - ((one + other) / 2 / view.width) * span, span);
  }

  chart.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    chart.setPointerCapture(event.pointerId);
    chart.focus({ preventScroll: true });
    pointers.set(event.pointerId, xOf(event));
    if (pointers.size === 2) return startPinch();
    dragged = endAt(event) ?? "frame";
    if (dragged === "frame") scrub(frameAt(xOf(event)));
    event.preventDefault();
  });
  chart.addEventListener("pointermove", (event) => {
    if (pointers.has(event.pointerId)) pointers.set(event.pointerId, xOf(event));
    if (dragged === "pinch") return pointers.size === 2 && movePinch();
    if (dragged && pointers.has(event.pointerId)) drag(event);
    else chart.style.cursor = endAt(event) ? "ew-resize" : "pointer";
    if (dragged !== "first" && dragged !== "last") showTip(event, frameAt(xOf(event)));
  });
  for (const name of ["pointerup", "pointercancel"]) {
    chart.addEventListener(name, (event) => {
      pointers.delete(event.pointerId);
      if (pointers.size === 0) dragged = null;
      if (event.pointerType !== "mouse") hideTip();
    });
  }
  chart.addEventListener("pointerleave", () => !dragged && hideTip());
  chart.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const isAcross = event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);
      const amount = (event.deltaY || event.deltaX) * (event.deltaMode === 1 ? 16 : 1);
      if (isAcross) setView(view.first + ((event.deltaX || event.deltaY) / view.width) * view.span, view.span);
      else zoom(Math.exp(clamp(amount, -240, 240) * 0.003), xOf(event));
      hideTip();
    },
    { passive: false },
  );

  // ---- the tip ----

  const picture = h("img", { alt: "", width: TIP_WIDTH, height: Math.round((TIP_WIDTH * videoHeight) / videoWidth) });
  const words = h("div", {});
  tip.append(picture, words);
  picture.onload = () => (picture.style.visibility = "visible");

  function showTip(event, frame) {
    const bounds = chart.getBoundingClientRect();
    const isNew = view.hover !== frame;
    view.hover = frame;
    request(false);
    const object = store.state.objects[Math.floor((event.clientY - bounds.top - RULER + view.top) / LANE)];
    const state = object && event.clientY - bounds.top > RULER ? stateName(codes.get(object.id)?.[frame] ?? 0) : "";
    const score = store.timeline?.objects[object?.id]?.score?.[frame] ?? -1;
    words.replaceChildren(
      h("div", {}, h("strong", {}, `Frame ${frame}`), ` ${timeText(frame, fps)}`),
      ...(state
        ? [h("div", { class: "timeline-tip-object" }, `${object.name}: ${WORDS[state]}${score >= 0 ? `, ${score} %` : ""}`)]
        : []),
    );
    tip.hidden = false;
    tip.style.left = `${clamp(xOf(event), TIP_WIDTH / 2 + 8, Math.max(TIP_WIDTH, bounds.width - TIP_WIDTH / 2 - 8))}px`;
    if (!isNew && picture.src) return;
    clearTimeout(timer);
    timer = setTimeout(() => (picture.src = api.frameUrl(store.token, frame, 320)), PICTURE_WAIT);
  }

  function hideTip() {
    clearTimeout(timer);
    tip.hidden = true;
    view.hover = null;
    request(false);
  }
}
