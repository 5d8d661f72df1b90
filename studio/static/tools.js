// Pointers on the stage: mouse, pen and fingers become clicks, boxes, strokes, zoom and pan.

import { toast } from "./toast.js";

const DRAG = 5; // CSS pixels from which a press is a drag
const LONG_PRESS = 500; // milliseconds
const SAME_PLACE = 6; // CSS pixels and
const SAME_TIME = 350; // milliseconds within which a second click is a double click, and is one click
const WHEEL = 0.0015; // zoom per pixel of the wheel

export class Tools {
  constructor(stage) {
    Object.assign(this, { stage, store: stage.store, actions: stage.actions });
    this.pointers = new Map(); // those that are down: id → [x, y] on the stage
    this.at = null; // the pointer on the stage, or null
    this.press = null; // what the pressed pointer does: {kind, …}; see `begin`
    this.crosshair = null; // [x, y] in the video, moved by keys
    this.isSpaceDown = false;
    this.isShiftDown = false;
    const { canvas } = stage;
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.up(event));
    canvas.addEventListener("pointercancel", (event) => this.lift(event, true));
    canvas.addEventListener("pointerleave", () => this.left());
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("auxclick", (event) => event.preventDefault());
  }

  // ---- what the stage draws ----

  /** The box that is being drawn, in the video, or null. */
  get box() {
    return this.press?.kind === "box" && this.press.isDrag ? this.boxOf(this.press) : null;
  }

  /** The stroke that is being drawn, or null. */
  get stroke() {
    return this.press?.kind === "stroke" ? this.press.stroke : null;
  }

  get isBrush() {
    return this.store.tool === "brush" || this.store.tool === "eraser";
  }

  /** Where the circle of the brush is on the stage, or null. */
  get brushAt() {
    if (!this.isBrush || this.press?.kind === "pan") return null;
    return this.crosshair ? this.stage.viewport.toStage(...this.crosshair) : this.at;
  }

  /** What a click here and now means, or null where there is nothing to click on; see `Actions.intentAt`. */
  get intent() {
    const place = this.crosshair ?? (this.at && this.toVideo(this.at));
    if (!place || this.isBrush || this.store.tool === "hand" || !this.isInside(place) || !this.stage.isShown) return null;
    return this.actions.intentAt(...place);
  }

  /** The candidate under the pointer, or null. */
  get hoveredItem() {
    return this.intent?.item ?? null;
  }

  // ---- pointers ----

  down(event) {
    this.crosshair = null;
    this.at = this.place(event);
    this.pointers.set(event.pointerId, this.at);
    this.stage.canvas.setPointerCapture(event.pointerId);
    if (this.pointers.size === 2) this.beginPinch();
    else if (this.pointers.size === 1) this.begin(event);
    this.stage.changed();
  }

  begin(event) {
    const { store } = this;
    const start = this.at;
    const isPan = event.button === 1 || this.isSpaceDown || (store.tool === "hand" && event.button === 0);
    this.isSpaceUsed ||= this.isSpaceDown;
    if (isPan) this.press = { kind: "pan" };
    else if (!this.stage.isShown || event.button > 2) this.press = { kind: "nothing" };
    else {
      store.pause();
      store.follows = false;
      const isNot = event.button === 2 || event.altKey;
      if (this.isBrush && event.button === 0) this.beginStroke(start, event.altKey);
      else this.press = { kind: "box", start, end: start, isNot, isDrag: false, isDouble: this.isDouble(event) };
      if (event.pointerType === "touch" && this.press.kind === "box") this.press.timer = setTimeout(() => this.longPress(), LONG_PRESS);
    }
    this.hoverHere();
  }

  beginStroke(start, isOther) {
    const { store } = this;
    const [x, y] = this.toVideo(start);
    this.press = { kind: "nothing" };
    if (!this.isInside([x, y])) return;
    const erase = (store.tool === "eraser") !== isOther; // alt changes one into the other
    const id = this.actions.strokeTarget(x, y);
    if (erase && id === null) {
      toast("Nothing to erase here: select an object first.");
      return;
    }
    this.press = { kind: "stroke", stroke: { id, frame: store.frame, points: [this.clipped([x, y])], radius: store.brushRadius, erase } };
  }

  move(event) {
    this.at = this.place(event);
    this.isShiftDown = event.shiftKey;
    if (event.pointerType !== "touch" || this.pointers.size) this.crosshair = null;
    if (!this.pointers.has(event.pointerId)) {
      this.hoverHere();
      this.stage.changed();
      return;
    }
    const last = this.pointers.get(event.pointerId);
    this.pointers.set(event.pointerId, this.at);
    const { press } = this;
    if (press?.kind === "pinch") this.pinch();
    else if (press?.kind === "pan") this.pan(this.at[0] - last[0], this.at[1] - last[1]);
    else if (press?.kind === "stroke") this.extendStroke(event);
    else if (press?.kind === "box") this.drag(press);
    else if (press?.kind === "unite") this.meet(press);
    this.stage.changed();
  }

  extendStroke(event) {
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length ? events : [event]) this.press.stroke.points.push(this.clipped(this.toVideo(this.place(each))));
  }

  drag(press) {
    press.end = this.at;
    press.isDrag ||= distance(press.start, press.end) > DRAG;
    if (!press.isDrag) return;
    clearTimeout(press.timer);
    const { candidates, frame } = this.store;
    if (candidates?.kind !== "everything" || candidates.frame !== frame) return;
    press.kind = "unite"; // a line through pieces, not a box
    press.keys = [];
    for (const place of [press.start, press.end]) this.meet(press, place);
  }

  /** Note the piece that a line goes through. */
  meet(press, place = this.at) {
    const item = this.actions.candidateAt(...this.toVideo(place));
    if (item && !press.keys.includes(item.key)) press.keys.push(item.key);
  }

  up(event) {
    const { press } = this;
    const isLast = this.pointers.size === 1;
    this.lift(event, false);
    if (!press || !isLast) return;
    if (press.kind === "stroke") {
      this.actions.stroke(press.stroke);
    } else if (press.kind === "unite") {
      if (press.keys.length) this.actions.unite(press.keys);
    } else if (press.kind === "box" && !press.isLong) {
      if (press.isDrag) this.endBox(press);
      else if (!press.isDouble && this.isInside(this.toVideo(press.start))) this.actions.click(...this.toVideo(press.start), press.isNot);
    }
    this.hoverHere();
  }

  /** A pointer is gone from the stage. `isCancelled`: what it began is dropped. */
  lift(event, isCancelled) {
    clearTimeout(this.press?.timer);
    this.pointers.delete(event.pointerId);
    if (this.pointers.size === 0 || isCancelled) this.press = null;
    if (event.pointerType === "touch") this.at = null;
    this.stage.changed();
  }

  left() {
    this.at = null;
    this.stage.hover.stop();
    this.stage.changed();
  }

  endBox(press) {
    if (press.isNot) return;
    const [left, top, right, bottom] = this.boxOf(press);
    if (right - left >= 1 && bottom - top >= 1) this.actions.box([left, top, right, bottom]);
  }

  longPress() {
    const { press } = this;
    if (press?.kind !== "box" || press.isDrag) return;
    press.isLong = true;
    navigator.vibrate?.(15);
    if (this.isInside(this.toVideo(press.start))) this.actions.click(...this.toVideo(press.start), true);
  }

  /** Drop what is being drawn; false where nothing is. */
  cancel() {
    const isDrawing = this.box !== null || this.stroke !== null;
    if (isDrawing) this.press = { kind: "nothing" };
    this.stage.changed();
    return isDrawing;
  }

  isDouble(event) {
    const before = this.lastPress;
    this.lastPress = { at: this.at, time: event.timeStamp };
    return Boolean(before) && event.timeStamp - before.time < SAME_TIME && distance(before.at, this.at) < SAME_PLACE;
  }

  // ---- zoom and pan ----

  wheel(event) {
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode === 1 ? 33 : 1);
    this.zoom(Math.exp(-pixels * WHEEL * (event.ctrlKey ? 5 : 1)), this.place(event));
  }

  /** Zoom by a factor around a place of the stage; its middle by default. */
  zoom(factor, at = []) {
    this.stage.viewport.zoom(factor, ...at);
    this.stage.moved();
  }

  fit() {
    this.stage.viewport.fit();
    this.stage.moved();
  }

  pan(dx, dy) {
    this.stage.viewport.pan(dx, dy);
    this.stage.moved();
  }

  beginPinch() {
    clearTimeout(this.press?.timer);
    const [one, other] = [...this.pointers.values()];
    this.press = { kind: "pinch", distance: distance(one, other), middle: middle(one, other) };
  }

  pinch() {
    if (this.pointers.size < 2) return;
    const { press } = this;
    const [one, other] = [...this.pointers.values()];
    const now = { distance: distance(one, other), middle: middle(one, other) };
    this.stage.viewport.pan(now.middle[0] - press.middle[0], now.middle[1] - press.middle[1]);
    this.stage.viewport.zoom(now.distance / Math.max(1, press.distance), ...now.middle);
    Object.assign(press, now);
    this.stage.moved();
  }

  /** Show the mask that a click would make, while shift is held. */
  hoverHere() {
    const place = this.crosshair ?? (this.at && this.toVideo(this.at));
    const { kind } = this.intent ?? {};
    if (this.isShiftDown && !this.press && (kind === "add" || kind === "refine")) this.stage.hover.at(...place);
    else this.stage.hover.stop();
  }

  // ---- parts ----

  place(event) {
    const { left, top } = this.stage.canvas.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  }

  toVideo([x, y]) {
    return this.stage.viewport.toVideo(x, y);
  }

  isInside([x, y]) {
    const { width, height } = this.store.state;
    return x >= 0 && y >= 0 && x < width && y < height;
  }

  clipped([x, y], margin = 0) {
    const { width, height } = this.store.state;
    return [Math.max(margin, Math.min(width - margin, x)), Math.max(margin, Math.min(height - margin, y))];
  }

  boxOf({ start, end }) {
    const [[x0, y0], [x1, y1]] = [this.clipped(this.toVideo(start)), this.clipped(this.toVideo(end))];
    return [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)];
  }
}

const distance = ([x0, y0], [x1, y1]) => Math.hypot(x1 - x0, y1 - y0);
const middle = ([x0, y0], [x1, y1]) => [(x0 + x1) / 2, (y0 + y1) / 2];
