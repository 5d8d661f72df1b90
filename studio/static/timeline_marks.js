// The marks of the timeline; its legend shows them too. States differ by height and pattern, not by colour alone.

const patterns = new Map();

/** Slanted ("hidden") or upright ("guessed") lines in a colour. */
function pattern(context, name, color) {
  const key = `${name} ${color}`;
  if (!patterns.has(key)) {
    const tile = new OffscreenCanvas(6, 6);
    const pen = tile.getContext("2d");
    pen.strokeStyle = color;
    pen.lineWidth = name === "hidden" ? 1.5 : 2;
    pen.beginPath();
    for (const [x0, y0, x1, y1] of name === "hidden"
      ? [
          [-1, 7, 7, -1],
          [-4, 4, 4, -4],
          [2, 10, 10, 2],
        ]
      : [
          [1, 0, 1, 6],
          [4, 0, 4, 6],
        ]) {
      pen.moveTo(x0, y0);
      pen.lineTo(x1, y1);
    }
    pen.stroke();
    patterns.set(key, context.createPattern(tile, "repeat"));
  }
  return patterns.get(key);
}

/** Draw a stretch of one state. */
export function drawState(context, name, color, x, y, width, height) {
  context.save();
  if (name === "seen" || name === "corrected") {
    context.globalAlpha *= name === "seen" ? 0.32 : 0.6;
    context.fillStyle = color;
    context.fillRect(x, y, width, height);
  } else if (name === "guessed") {
    context.fillStyle = pattern(context, "guessed", color);
    context.fillRect(x, y + height * 0.3, width, height * 0.7);
  } else if (name === "hidden") {
    context.fillStyle = pattern(context, "hidden", color);
    context.fillRect(x, y + height * 0.55, width, height * 0.45);
  } else if (name === "lost") {
    context.strokeStyle = color;
    context.lineWidth = 2;
    context.setLineDash([2, 4]);
    context.lineDashOffset = x;
    context.beginPath();
    context.moveTo(x, y + height - 1);
    context.lineTo(x + width, y + height - 1);
    context.stroke();
  }
  context.restore();
}

/** A barrier's mark: an upright line with a diamond. */
export function drawBarrier(context, color, edge, x, y, height) {
  context.fillStyle = color;
  context.fillRect(x - 1, y, 2, height);
  const size = 4.5;
  const middle = y + height / 2;
  context.beginPath();
  context.moveTo(x, middle - size);
  context.lineTo(x + size, middle);
  context.lineTo(x, middle + size);
  context.lineTo(x - size, middle);
  context.closePath();
  context.fill();
  context.strokeStyle = edge;
  context.lineWidth = 1.25;
  context.stroke();
}

/** A scene cut: a dashed line. */
export function drawCut(context, at, top, bottom, color) {
  context.strokeStyle = color;
  context.lineWidth = 1;
  context.setLineDash([4, 3]);
  context.beginPath();
  context.moveTo(Math.round(at) + 0.5, top);
  context.lineTo(Math.round(at) + 0.5, bottom);
  context.stroke();
  context.setLineDash([]);
}

/** A detection round's mark: a small triangle. */
export function drawRound(context, at, bottom, color) {
  context.fillStyle = color;
  context.beginPath();
  context.moveTo(at, bottom);
  context.lineTo(at - 4, bottom - 6);
  context.lineTo(at + 4, bottom - 6);
  context.fill();
}
