// The stage: the frame with its masks, and what the hand does on it.

import { Actions, Hover, strokePath } from "./actions.js";
import { h } from "./dom.js";
import { Keys } from "./keys.js";
import { OverlayCache, Painter, packed, visibleCells } from "./overlay.js";
import { ACCENT, drawBox, drawBrush, drawCrosshair, drawNames, drawPoint } from "./scene.js";
import { mountToolbar } from "./toolbar.js";
import { Tools } from "./tools.js";
import { Viewport } from "./viewport.js";

const LINE = 1.75; // CSS pixels, thickness of outlines
const REST = 120; // milliseconds after the last step when a frame is looked at
const EVENTS = ["frame", "frames", "masks", "state", "selected", "view", "tool", "candidates", "busy"];

export function mountStage(element, store, api) {
  const stage = new Stage(store, api);
  const place = h("div", { class: "stage-place" }, stage.canvas);
  element.append(place);
  mountToolbar(element, store, stage);
  stage.watch(place);
}

export class Stage {
  constructor(store, api) {
    this.store = store;
    this.canvas = h("canvas", {
      class: "stage-canvas", id: "stage-canvas", tabindex: 0, role: "application", "data-test": "stage",
      "aria-label": "Frame of the video. W, A, S and D move a crosshair, Enter is a click at it, Shift and Enter says: not that.",
    });
    // Keys of other tools would make a ring appear after a click: it is for those who came here by keys.
    this.canvas.addEventListener("focus", () => this.canvas.classList.toggle("by-keys", this.canvas.matches(":focus-visible")));
    this.canvas.addEventListener("pointerdown", () => this.canvas.classList.remove("by-keys"));
    this.context = this.canvas.getContext("2d");
    this.viewport = new Viewport(store.state.width, store.state.height);
    this.overlays = new OverlayCache(store);
    this.painter = new Painter(store.state.width, store.state.height); // of candidates and the preview
    this.actions = new Actions(store, () => this.changed());
    this.hover = new Hover(store, this.actions, api);
    this.tools = new Tools(this);
    this.keys = new Keys(this);
    this.shown = null; // the frame that is drawn: the current one, or the last one until that has come
    this.onChange = new Set(); // called after each drawing: what stands beside the stage
    this.steppedAt = -REST;
    for (const name of EVENTS) store.on(name, () => this.changed());
    store.on("frame", () => this.stepped());
    store.on("closed", () => this.close());
  }

  /** Draw as large as an element is, and go along with it. */
  watch(place) {
    this.observer = new ResizeObserver(() => this.resize(place));
    this.observer.observe(place);
    const { zoom } = this.store; // as an earlier visit left it
    this.resize(place);
    this.viewport.restore(zoom);
    this.moved();
  }

  close() {
    this.observer?.disconnect();
    this.keys.close();
    clearTimeout(this.restTimer);
    cancelAnimationFrame(this.request);
    this.request = -1;
  }

  resize(place) {
    const { clientWidth, clientHeight } = place;
    this.ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.max(1, Math.round(clientWidth * this.ratio));
    this.canvas.height = Math.max(1, Math.round(clientHeight * this.ratio));
    this.viewport.resize(Math.max(1, clientWidth), Math.max(1, clientHeight));
    this.moved();
    this.draw(performance.now()); // at once: a canvas that was resized is empty
  }

  /** After zooming, panning or resizing. */
  moved() {
    const { viewport, store, ratio } = this;
    const fitted = viewport.width * viewport.fitting * ratio;
    store.setScreen(fitted, viewport.width * viewport.scale * ratio, viewport.place());
    this.changed();
  }

  /** Draw again before the screen shows its next picture. */
  changed() {
    this.request ??= requestAnimationFrame((now) => {
      this.request = null;
      this.draw(now);
    });
  }

  /** Whether what is seen is the current frame, so that clicks mean what is seen. */
  get isShown() {
    return this.shown === this.store.frame;
  }

  draw(now) {
    const { context, store, viewport, ratio } = this;
    if (this.request === -1) return;
    if (store.frames.get(store.frame)) this.shown = store.frame;
    const bitmap = this.shown === null ? null : store.frames.get(this.shown);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (bitmap) {
      context.setTransform(ratio * viewport.scale, 0, 0, ratio * viewport.scale, ratio * viewport.left, ratio * viewport.top);
      context.imageSmoothingEnabled = viewport.scale * ratio < 3; // close up, pixels are seen as they are
      context.drawImage(bitmap, 0, 0, viewport.width, viewport.height);
      this.drawMasks();
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      this.drawScene(now);
    }
    for (const fn of this.onChange) fn();
    if (this.actions.points.some((point) => point.isPending)) this.changed();
  }

  /** How thick outlines are, in pixels of the video. */
  get thickness() {
    return Math.max(1, LINE / this.viewport.scale);
  }

  /** Whether frames follow each other, so that each is seen for a moment only. */
  get isMoving() {
    return this.store.playing || performance.now() - this.steppedAt < REST;
  }

  stepped() {
    this.steppedAt = performance.now();
    clearTimeout(this.restTimer);
    this.restTimer = setTimeout(() => this.changed(), REST + 10);
  }

  // ---- in pixels of the video ----

  drawMasks() {
    const { context, store, shown } = this;
    const overlay = this.overlays.get(shown, this.thickness, this.isMoving);
    const candidates = store.candidates?.frame === shown ? store.candidates : null;
    const strokes = [...this.actions.strokes, this.tools.stroke].filter((stroke) => stroke?.frame === shown);
    if (overlay || strokes.length) {
      context.globalAlpha = candidates ? 0.4 : 1;
      this.drawOverlay(strokes.length ? this.withStrokes(overlay, strokes) : overlay);
      context.globalAlpha = 1;
    }
    if (candidates) this.drawOverlay(this.candidatesOverlay(candidates));
    const { preview } = this.actions;
    if (preview?.frame === shown) this.drawOverlay(this.previewOverlay(preview));
  }

  drawOverlay({ canvas, step }) {
    this.context.drawImage(canvas, 0, 0, canvas.width * step, canvas.height * step);
  }

  /** A copy of an overlay with strokes on it, so that painting is seen before it is answered. */
  withStrokes(overlay, strokes) {
    const { store } = this;
    const [width, height] = this.painter.size;
    this.scratch ??= new OffscreenCanvas(width, height);
    const context = this.scratch.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    context.scale(1 / this.painter.step, 1 / this.painter.step);
    if (overlay) context.drawImage(overlay.canvas, 0, 0, overlay.canvas.width * overlay.step, overlay.canvas.height * overlay.step);
    for (const stroke of strokes) {
      context.globalCompositeOperation = "destination-out";
      context.strokeStyle = "#000000";
      strokePath(context, stroke);
      context.globalCompositeOperation = "source-over";
      if (stroke.erase) continue;
      context.globalAlpha = Math.max(0.3, store.view.opacity);
      context.strokeStyle = store.object(stroke.id)?.color ?? ACCENT;
      strokePath(context, stroke);
      context.globalAlpha = 1;
    }
    return { canvas: this.scratch, step: this.painter.step };
  }

  candidatesOverlay(candidates) {
    const hovered = this.tools.hoveredItem?.key ?? null;
    const looks = JSON.stringify([hovered, this.thickness, candidates.items.map(({ accepted, color }) => [accepted, color])]);
    if (this.candidatesDrawn?.of !== candidates || this.candidatesDrawn.looks !== looks) {
      const area = ({ box }) => (box[2] - box[0]) * (box[3] - box[1]);
      const items = [...candidates.items].sort((one, other) => area(other) - area(one));
      const layers = items.map((item) => {
        const color = item.color ?? ACCENT;
        const opacity = item.accepted ? 0.6 : candidates.kind === "everything" ? 0.18 : 0.1;
        const fill = packed(color, opacity + (item.key === hovered ? 0.2 : 0));
        return { runs: item.runs, fill, line: packed(color, item.accepted ? 1 : 0.6), isRinged: false };
      });
      this.candidatesDrawn = { of: candidates, looks, ...this.painted(layers, this.candidatesDrawn?.canvas) };
    }
    return this.candidatesDrawn;
  }

  previewOverlay(preview) {
    if (this.previewDrawn?.of !== preview || this.previewDrawn.thickness !== this.thickness) {
      const layer = { runs: preview.runs, fill: packed(ACCENT, 0.45), line: 0, isRinged: true };
      this.previewDrawn = { of: preview, thickness: this.thickness, ...this.painted([layer], this.previewDrawn?.canvas) };
    }
    return this.previewDrawn;
  }

  painted(layers, canvas) {
    const { step } = this.painter;
    return { canvas: this.painter.paint(layers, Math.max(1, Math.round(this.thickness / step)), canvas), step };
  }

  // ---- in CSS pixels of the stage ----

  drawScene(now) {
    const { context, store, viewport, shown, tools } = this;
    const candidates = store.candidates?.frame === shown ? store.candidates : null;
    const cells = visibleCells(store, store.masks.get(shown)).reverse();
    const objects = cells.map((cell) => ({ ...cell, text: store.object(cell.id).name, color: store.object(cell.id).color }));
    if (store.view.boxes) for (const { box, color } of objects) drawBox(context, viewport, box, color);
    const names = store.view.labels && !candidates ? objects : [];
    if (candidates) {
      for (const item of candidates.items) {
        if (candidates.kind === "find") drawBox(context, viewport, item.box, item.color ?? ACCENT, { isDashed: !item.accepted, width: 2 });
      }
      if (candidates.kind === "find") names.push(...candidates.items.map(candidateName));
    }
    drawNames(context, viewport, names);
    for (const point of this.actions.points) if (point.frame === shown) drawPoint(context, viewport, point, now);
    if (tools.box) drawBox(context, viewport, tools.box, "#ffffff", { width: 1.5 });
    if (tools.brushAt) drawBrush(context, tools.brushAt, store.brushRadius * viewport.scale);
    if (tools.crosshair) drawCrosshair(context, viewport.toStage(...tools.crosshair));
  }
}

const candidateName = (item) => ({
  text: `${item.accepted ? "✓ " : ""}${item.label} ${item.confidence.toFixed(2)}`,
  color: item.accepted ? (item.color ?? ACCENT) : "#6b7280",
  box: item.box,
});
