// Masks as pictures: run lengths are drawn straight into one see-through canvas for each frame, which is kept.

import { drawRuns } from "./rle.js";

const LONGEST = 1920; // pixels of an overlay's longer side; masks of larger videos are drawn with fewer
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
  constructor(width, height) {
    this.height = height;
    this.step = overlayStep(width, height);
    this.size = [Math.ceil(width / this.step), Math.ceil(height / this.step)];
    this.labels = new Uint16Array(this.size[0] * this.size[1]);
  }

  /**
   * A canvas of masks.
   * @param layers [{runs, fill, line, isRinged}], the lowest first: packed colours of the inside and of the outline, 0 for
   *     none; ringed ones have a white outline with a black one around it, which is seen on everything.
   * @param thickness of the outlines in pixels of the canvas.
   */
  paint(layers, thickness, canvas = document.createElement("canvas")) {
    const [width, height] = this.size;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    this.labels.fill(0);
    let span = [width, height, 0, 0];
    layers.forEach((layer, index) => {
      const [left, top, right, bottom] = drawRuns(layer.runs, this.height, this.labels, width, index + 1, this.step);
      if (right) span = [Math.min(span[0], left), Math.min(span[1], top), Math.max(span[2], right), Math.max(span[3], bottom)];
    });
    this.color(pixels, layers, thickness, span);
    context.putImageData(image, 0, 0);
    return canvas;
  }

  color(pixels, layers, thickness, [left, top, right, bottom]) {
    const { labels } = this;
    const [width, height] = this.size;
    const fills = [0, ...layers.map((layer) => layer.fill)];
    const lines = [0, ...layers.map((layer) => (layer.isRinged ? WHITE : layer.line))];
    const ringed = layers.findIndex((layer) => layer.isRinged) + 1;
    const margin = ringed ? thickness : 0;
    const down = thickness * width;
    const [x0, x1] = [Math.max(0, left - margin), Math.min(width, right + margin)];
    for (let y = Math.max(0, top - margin); y < Math.min(height, bottom + margin); y++) {
      const [hasAbove, hasBelow] = [y >= thickness, y + thickness < height];
      for (let x = x0, at = y * width + x0; x < x1; x++, at++) {
        const label = labels[at];
        const west = x >= thickness ? labels[at - thickness] : label;
        const east = x + thickness < width ? labels[at + thickness] : label;
        const north = hasAbove ? labels[at - down] : label;
        const south = hasBelow ? labels[at + down] : label;
        if (label === west && label === east && label === north && label === south) {
          if (label) pixels[at] = fills[label];
        } else if (ringed && label !== ringed && (west === ringed || east === ringed || north === ringed || south === ringed)) {
          pixels[at] = BLACK;
        } else if (label) {
          pixels[at] = lines[label] || fills[label];
        }
      }
    }
  }
}

/** The overlays of frames, made when they are drawn and kept as long as they hold. */
export class OverlayCache {
  constructor(store) {
    this.store = store;
    this.painter = new Painter(store.state.width, store.state.height);
    this.kept = new Map(); // frame → {cells, style, canvas}, the latest drawn last
    this.room = Math.max(2, Math.floor(MOST_BYTES / (4 * this.painter.labels.length)));
  }

  /** The canvas of a frame's masks, or null where they are not known. @param thickness of outlines in its pixels. */
  get(frame, thickness) {
    const { store } = this;
    const cells = store.masks.get(frame);
    if (!cells) return null;
    const style = `${this.styleOf()} ${thickness}`;
    const kept = this.kept.get(frame);
    this.kept.delete(frame);
    if (kept && kept.cells === cells && kept.style === style) {
      this.kept.set(frame, kept);
      return kept.canvas;
    }
    let reused = kept?.canvas;
    if (!reused && this.kept.size >= this.room) {
      const [oldest, { canvas }] = this.kept.entries().next().value;
      this.kept.delete(oldest);
      reused = canvas;
    }
    const canvas = this.painter.paint(this.layersOf(cells), thickness, reused);
    this.kept.set(frame, { cells, style, canvas });
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
