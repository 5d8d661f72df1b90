// Masks as pictures: run lengths are drawn straight into one see-through canvas for each frame, which is kept.

import { drawRuns } from "./rle.js";

const LONGEST = 1920; // pixels of an overlay's longer side; masks of larger videos are drawn with fewer
const QUICK_PIXELS = 400_000; // of an overlay that is seen for a moment
const MOST_BYTES = 128 * 2 ** 20;
const WHITE = 0xffffffff;
const BLACK = 0xc0000000;

/** 0xAABBGGRR, as image data has it, of "#rrggbb" and an opacity from 0 to 1. */
export function packed(color, opacity) {
  const rgb = parseInt(color.slice(1, 7), 16);
  const [red, green, blue] = [rgb >> 16, (rgb >> 8) & 255, rgb & 255];
  return ((Math.round(opacity * 255) << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

/** Every how many pixels of the video an overlay has one. */
export const overlayStep = (width, height) => Math.max(1, Math.ceil(Math.max(width, height) / LONGEST));

/** Draws layers of masks into canvases; what it needs besides is made once. */
export class Painter {
  constructor(width, height, step = overlayStep(width, height)) {
    this.height = height;
    this.step = step;
    this.size = [Math.ceil(width / step), Math.ceil(height / step)];
    this.labels = new Uint16Array(this.size[0] * this.size[1]);
    this.image = new ImageData(...this.size);
    this.pixels = new Uint32Array(this.image.data.buffer);
  }

  /**
   * A canvas of masks.
   * @param layers [{runs, fill, line, isRinged}], the lowest first: packed colours of the inside and of the outline, 0 for
   *     none; ringed ones have a white outline with a black one around it, which is seen on everything.
   * @param thickness of the outlines in pixels of the canvas.
   */
  paint(layers, thickness, canvas = document.createElement("canvas")) {
    const [width, height] = this.size;
    const context = canvas.getContext("2d");
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    else context.clearRect(0, 0, width, height);
    this.pixels.fill(0);
    this.labels.fill(0);
    const boxes = layers.map(({ runs }, index) => drawRuns(runs, this.height, this.labels, width, index + 1, this.step));
    layers.forEach((layer, index) => {
      const margin = layer.isRinged ? thickness : 0;
      const [left, top, right, bottom] = boxes[index];
      if (!right) return;
      const [x0, y0] = [Math.max(0, left - margin), Math.max(0, top - margin)];
      const [x1, y1] = [Math.min(width, right + margin), Math.min(height, bottom + margin)];
      this.color(index + 1, layer, thickness, x0, y0, x1, y1);
      boxes[index] = [x0, y0, x1, y1];
    });
    for (const [x0, y0, x1, y1] of boxes) if (x1) context.putImageData(this.image, 0, 0, x0, y0, x1 - x0, y1 - y0);
    return canvas;
  }

  /** Colour the pixels of one layer in a box: those on its edge, whose neighbour is another's, and those within. */
  color(own, { fill, line, isRinged }, thickness, x0, y0, x1, y1) {
    const { labels, pixels } = this;
    const [width, height] = this.size;
    const edge = isRinged ? WHITE : line || fill;
    for (let y = y0; y < y1; y++) {
      const [up, down] = [y >= thickness ? -thickness * width : 0, y + thickness < height ? thickness * width : 0];
      for (let x = x0, at = y * width + x0; x < x1; x++, at++) {
        const isOwn = labels[at] === own;
        if (!isOwn && !isRinged) continue;
        const isWithin =
          (labels[at + up] === own) === isOwn &&
          (labels[at + down] === own) === isOwn &&
          (x < thickness || (labels[at - thickness] === own) === isOwn) &&
          (x + thickness >= width || (labels[at + thickness] === own) === isOwn);
        if (isOwn) pixels[at] = isWithin ? fill : edge;
        else if (!isWithin) pixels[at] = BLACK;
      }
    }
  }
}

/** The overlays of frames, made when they are drawn and kept as long as they hold. */
export class OverlayCache {
  constructor(store) {
    const { width, height } = store.state;
    this.store = store;
    this.fine = new Painter(width, height);
    const step = Math.max(this.fine.step, Math.ceil(Math.sqrt((width * height) / QUICK_PIXELS)));
    this.quick = step > this.fine.step ? new Painter(width, height, step) : this.fine;
    this.kept = new Map(); // frame → {cells, style, canvas, painter}, the latest drawn last
    this.room = Math.max(2, Math.floor(MOST_BYTES / (4 * this.fine.labels.length)));
  }

  /**
   * A frame's masks → {canvas, step}, or null where they are not known. `isMoving`: it is seen for a moment, and may be
   * coarse. @param thickness of outlines in pixels of the video.
   */
  get(frame, thickness, isMoving) {
    const { store } = this;
    const cells = store.masks.get(frame);
    if (!cells) return null;
    const style = `${this.styleOf()} ${thickness}`;
    const kept = this.kept.get(frame);
    this.kept.delete(frame);
    let made = kept;
    if (kept?.cells !== cells || kept.style !== style || (kept.painter !== this.fine && !isMoving)) {
      const painter = isMoving ? this.quick : this.fine;
      const pixels = Math.max(1, Math.min(4, Math.round(thickness / painter.step)));
      made = { cells, style, painter, canvas: painter.paint(this.layersOf(cells), pixels, kept?.canvas ?? this.unused()) };
    }
    this.kept.set(frame, made);
    return { canvas: made.canvas, step: made.painter.step };
  }

  /** The canvas that was drawn longest ago, when there are enough. */
  unused() {
    if (this.kept.size < this.room) return undefined;
    const [oldest, { canvas }] = this.kept.entries().next().value;
    this.kept.delete(oldest);
    return canvas;
  }

  styleOf() {
    const { state, selected, view } = this.store;
    if (this.styled?.state !== state || this.styled.selected !== selected || this.styled.view !== JSON.stringify(view)) {
      const looks = state.objects.map(({ id, color, is_hidden }) => [id, color, is_hidden]);
      this.styled = { state, selected, view: JSON.stringify(view), text: JSON.stringify([looks, selected, view.fill, view.outlines, view.opacity]) };
    }
    return this.styled.text;
  }

  /** What is drawn of cells: those of objects that are there and not hidden, small ones above large ones. */
  layersOf(cells) {
    const { store } = this;
    const { fill, outlines, opacity } = store.view;
    return visibleCells(store, cells).map((cell) => {
      const { color } = store.object(cell.id);
      const isSelected = cell.id === store.selected;
      const inside = fill ? packed(color, Math.min(1, opacity + (isSelected ? 0.1 : 0))) : 0;
      return { runs: cell.runs, fill: inside, line: outlines ? packed(color, 1) : 0, isRinged: isSelected };
    });
  }
}

/** The cells that are drawn, the largest first and the selected one last. */
export function visibleCells(store, cells) {
  const isVisible = (cell) => cell.area > 0 && store.object(cell.id)?.is_hidden === false;
  const rank = (cell) => (cell.id === store.selected ? 1 : 0);
  return (cells ?? []).filter(isVisible).sort((one, other) => rank(one) - rank(other) || other.area - one.area);
}
