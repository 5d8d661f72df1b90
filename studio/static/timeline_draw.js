// How the lanes of the timeline look.

import { drawBarrier, drawCut, drawRound, drawState } from "./timeline_marks.js";

export const RULER = 28; // pixels, as all lengths here
export const LANE = 26;
export const MARGIN = 10; // left and right of the video, for marks on its first and last frame; no part of a view's width
const PAD = 3; // above and below the bar of a lane
const NAMES = ["", "seen", "guessed", "hidden", "lost", "corrected"]; // the later is drawn where several share a pixel

/** States as run lengths → (num_frames,) Uint8Array of positions in NAMES. */
export function codesOf(states, numFrames) {
  const codes = new Uint8Array(numFrames);
  let start = 0;
  for (const [name, length] of states) {
    codes.fill(Math.max(0, NAMES.indexOf(name)), start, start + length);
    start += length;
  }
  return codes;
}

export const stateName = (code) => NAMES[code];

/** The colours of the page as it is now. */
function colorsOf(element) {
  const style = getComputedStyle(element);
  const color = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    text: color("text"),
    muted: color("muted"),
    border: color("border"),
    strong: color("border-strong"),
    surface: color("surface"),
    sunken: color("sunken"),
    accent: color("accent"),
    soft: color("accent-soft"),
    warning: color("warning"),
    danger: color("danger"),
    font: style.fontFamily,
  };
}

/**
 * Ruler and lanes.
 * @param view {first, span (frames), width, height, top (pixels that the lanes are scrolled), store, codes}.
 */
export function drawLanes(context, view, element) {
  const colors = colorsOf(element);
  const { store, width, height, top } = view;
  const x = (frame) => ((frame - view.first) / view.span) * width;
  context.font = `11px ${colors.font}`;

  context.save();
  context.beginPath();
  context.rect(-MARGIN, RULER, width + 2 * MARGIN, height - RULER);
  context.clip();
  store.state.objects.forEach((object, index) => {
    const y = RULER + index * LANE - top;
    if (y + LANE < RULER || y > height) return;
    if (object.id === store.selected) {
      context.fillStyle = colors.soft;
      context.fillRect(-MARGIN, y, width + 2 * MARGIN, LANE);
    }
    context.fillStyle = colors.border;
    context.fillRect(-MARGIN, y + LANE - 1, width + 2 * MARGIN, 1);
    context.globalAlpha = object.is_hidden ? 0.4 : 1;
    drawLane(context, view, object, x, y, colors);
    context.globalAlpha = 1;
  });
  for (const frame of store.timeline?.cuts ?? []) drawCut(context, x(frame), RULER, height, colors.strong);
  context.restore();
  drawRuler(context, view, x, colors);
  if (store.range) {
    context.fillStyle = colors.surface;
    context.globalAlpha = 0.62;
    context.fillRect(-MARGIN, RULER, x(store.range.first) + MARGIN, height);
    context.fillRect(x(store.range.last + 1), RULER, width + 2 * MARGIN, height);
    context.globalAlpha = 1;
  }
}

function drawLane(context, view, object, x, y, colors) {
  const codes = view.codes.get(object.id);
  const height = LANE - 2 * PAD - 1;
  if (codes) {
    forColumns(view, codes, (code, left, right) =>
      drawState(context, stateName(code), object.color, left, y + PAD, right - left, height),
    );
    drawScore(context, view, view.store.timeline.objects[object.id]?.score ?? [], object.color, y + PAD, height);
  }
  let last = -10;
  for (const frame of object.given) {
    const at = x(frame + 0.5);
    if (at < -6 || at > view.width + 6 || at - last < 2) continue;
    drawBarrier(context, object.color, colors.surface, at, y + PAD, height);
    last = at;
  }
}

/** Call `draw(code, left, right)` for each stretch of one state: frame by frame, or pixel by pixel where that is less. */
function forColumns(view, codes, draw) {
  const first = Math.max(0, Math.floor(view.first));
  const stop = Math.min(codes.length, Math.ceil(view.first + view.span));
  const scale = view.width / view.span;
  let [left, code] = [(first - view.first) * scale, codes[first]];
  let pixel = Math.floor(left);
  let next = code;
  for (let frame = first; frame < stop; frame++) {
    const at = (frame - view.first) * scale;
    if (scale >= 1 || Math.floor(at) > pixel) {
      pixel = Math.floor(at);
      if (next !== code) {
        if (code) draw(code, left, at);
        [left, code] = [at, next];
      }
      next = 0;
    }
    next = Math.max(next, codes[frame]);
    if (scale >= 1 && next !== code) {
      if (code) draw(code, left, at);
      [left, code] = [at, next];
    }
  }
  const end = (stop - view.first) * scale;
  if (code) draw(code, left, end);
}

/** The confidence as a line over the bar, the lowest of what shares a pixel. */
function drawScore(context, view, score, color, y, height) {
  const first = Math.max(0, Math.floor(view.first) - 1);
  const stop = Math.min(score.length, Math.ceil(view.first + view.span) + 1);
  const scale = view.width / view.span;
  const step = Math.max(1, Math.floor(1 / scale));
  context.strokeStyle = color;
  context.lineWidth = 1.75;
  context.lineJoin = "round";
  context.beginPath();
  let isDown = false;
  for (let frame = first; frame < stop; frame += step) {
    let least = 101;
    for (let each = frame; each < Math.min(stop, frame + step); each++)
      if (score[each] >= 0) least = Math.min(least, score[each]);
    if (least > 100) {
      isDown = false;
      continue;
    }
    const at = [(frame + step / 2 - view.first) * scale, y + 1.5 + (height - 3) * (1 - least / 100)];
    if (isDown) context.lineTo(...at);
    else context.moveTo(...at);
    isDown = true;
  }
  context.stroke();
}

function drawRuler(context, view, x, colors) {
  const { store, width } = view;
  context.fillStyle = colors.sunken;
  context.fillRect(-MARGIN, 0, width + 2 * MARGIN, RULER);
  if (store.range) {
    context.fillStyle = colors.soft;
    context.fillRect(x(store.range.first), 0, x(store.range.last + 1) - x(store.range.first), RULER);
  }
  const step =
    [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000].find(
      (each) => (each / view.span) * width >= 56,
    ) ?? 200000;
  context.textBaseline = "middle";
  for (let frame = Math.ceil(view.first / step) * step; frame < view.first + view.span; frame += step) {
    const at = Math.round(x(frame + 0.5)) + 0.5;
    context.fillStyle = colors.strong;
    context.fillRect(at - 0.5, RULER - 7, 1, 6);
    context.fillStyle = colors.muted;
    const text = String(frame);
    const half = context.measureText(text).width / 2;
    context.fillText(text, Math.min(Math.max(at - half, 2), width - 2 * half - 2), 9);
  }
  context.fillStyle = colors.border;
  context.fillRect(-MARGIN, RULER - 1, width + 2 * MARGIN, 1);
  for (const frame of store.timeline?.rounds ?? []) drawRound(context, x(frame + 0.5), RULER - 2, colors.accent);
  for (const frame of store.timeline?.cuts ?? []) drawCut(context, x(frame), 2, RULER, colors.strong);
  if (store.range) {
    for (const [frame, way] of [
      [store.range.first, 1],
      [store.range.last + 1, -1],
    ])
      drawHandle(context, x(frame), way, colors);
  }
}

function drawHandle(context, at, way, colors) {
  context.fillStyle = colors.accent;
  context.fillRect(way > 0 ? at : at - 3, 0, 3, RULER);
  context.fillRect(way > 0 ? at : at - 8, 0, 8, 3);
  context.fillRect(way > 0 ? at : at - 8, RULER - 3, 8, 3);
}

/** The current frame, and the one under the pointer. */
export function drawOver(context, view, element) {
  const colors = colorsOf(element);
  const { store, width, height } = view;
  const scale = width / view.span;
  if (view.hover !== null) {
    context.fillStyle = colors.strong;
    context.fillRect(Math.round((view.hover + 0.5 - view.first) * scale), 0, 1, height);
  }
  const at = Math.round((store.frame + 0.5 - view.first) * scale);
  if (scale > 4) {
    context.globalAlpha = 0.12;
    context.fillStyle = colors.text;
    context.fillRect((store.frame - view.first) * scale, RULER, scale, height);
    context.globalAlpha = 1;
  }
  context.fillStyle = colors.text;
  context.fillRect(at - 1, RULER - 8, 2, height);
  context.beginPath();
  context.moveTo(at - 6, RULER - 13);
  context.lineTo(at + 6, RULER - 13);
  context.lineTo(at + 6, RULER - 7);
  context.lineTo(at, RULER);
  context.lineTo(at - 6, RULER - 7);
  context.fill();
}
