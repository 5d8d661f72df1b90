// What is drawn over the masks: boxes, names, candidates, clicks, the brush, the crosshair. In CSS pixels.

const FONT = "600 12px system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif";
const PILL = 18; // height of a name
const ACCENT = "#4f8dff";

/** White or black, whichever is read better on "#rrggbb". */
export function inkOn(color) {
  const rgb = parseInt(color.slice(1, 7), 16);
  const linear = (value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = 0.2126 * linear(rgb >> 16) + 0.7152 * linear((rgb >> 8) & 255) + 0.0722 * linear(rgb & 255);
  return luminance > 0.19 ? "#000000" : "#ffffff";
}

export function drawBox(context, viewport, box, color, { isDashed = false, width = 2 } = {}) {
  const [left, top] = viewport.toStage(box[0], box[1]);
  const [right, bottom] = viewport.toStage(box[2], box[3]);
  context.save();
  if (isDashed) context.setLineDash([6, 4]);
  for (const [style, thickness] of [["rgb(0 0 0 / 45%)", width + 1.5], [color, width]]) {
    context.strokeStyle = style;
    context.lineWidth = thickness;
    context.strokeRect(left, top, right - left, bottom - top);
  }
  context.restore();
}

/**
 * Names in pills at the upper left of their boxes, moved so that they do not lie on each other and stay on the stage.
 * @param names [{text, color, box (of the video), mark ("✓" or ""), isFaint}]
 */
export function drawNames(context, viewport, names) {
  context.font = FONT;
  context.textBaseline = "middle";
  const taken = [];
  for (const { text, color, box, isFaint = false } of names) {
    const [boxLeft, boxTop] = viewport.toStage(box[0], box[1]);
    const [boxRight, boxBottom] = viewport.toStage(box[2], box[3]);
    if (boxRight < 0 || boxBottom < 0 || boxLeft > viewport.stage.width || boxTop > viewport.stage.height) continue;
    const width = Math.ceil(context.measureText(text).width) + 12;
    const left = Math.max(2, Math.min(viewport.stage.width - width - 2, boxLeft));
    let top = Math.max(2, Math.min(viewport.stage.height - PILL - 2, boxTop - PILL - 2));
    const isTaken = () => taken.some((other) => left < other.right && left + width > other.left && top < other.top + PILL && top + PILL > other.top);
    for (let tries = 0; tries < 12 && isTaken(); tries++) top += PILL + 1;
    taken.push({ left, right: left + width, top });
    context.globalAlpha = isFaint ? 0.7 : 1;
    context.fillStyle = color;
    context.beginPath();
    context.roundRect(left, top, width, PILL, 4);
    context.fill();
    context.strokeStyle = "rgb(0 0 0 / 35%)";
    context.lineWidth = 1;
    context.stroke();
    context.fillStyle = inkOn(color);
    context.fillText(text, left + 6, top + PILL / 2 + 0.5);
    context.globalAlpha = 1;
  }
}

/** A click: a green plus, or a red minus for "not that"; with a turning ring while it is answered. */
export function drawPoint(context, viewport, { x, y, label, isPending }, now) {
  const [left, top] = viewport.toStage(x, y);
  context.save();
  context.translate(left, top);
  context.beginPath();
  context.arc(0, 0, 7, 0, 2 * Math.PI);
  context.fillStyle = label ? "#1b8a43" : "#c62828";
  context.fill();
  context.lineWidth = 1.5;
  context.strokeStyle = "#ffffff";
  context.stroke();
  context.beginPath();
  context.moveTo(-3.5, 0);
  context.lineTo(3.5, 0);
  if (label) {
    context.moveTo(0, -3.5);
    context.lineTo(0, 3.5);
  }
  context.stroke();
  if (isPending) {
    const turn = (now / 500) * Math.PI;
    context.beginPath();
    context.arc(0, 0, 12, turn, turn + 4.4);
    context.lineWidth = 4;
    context.strokeStyle = "rgb(0 0 0 / 50%)";
    context.stroke();
    context.lineWidth = 2;
    context.strokeStyle = "#ffffff";
    context.stroke();
  }
  context.restore();
}

/** The brush at a place of the stage, `radius` CSS pixels wide. */
export function drawBrush(context, [x, y], radius) {
  for (const [color, width] of [["rgb(0 0 0 / 70%)", 3], ["#ffffff", 1.25]]) {
    context.beginPath();
    context.arc(x, y, Math.max(1.5, radius), 0, 2 * Math.PI);
    context.strokeStyle = color;
    context.lineWidth = width;
    context.stroke();
  }
}

/** The crosshair that keys move. */
export function drawCrosshair(context, [x, y]) {
  for (const [color, width] of [["rgb(0 0 0 / 75%)", 4], ["#ffffff", 1.75]]) {
    context.strokeStyle = color;
    context.lineWidth = width;
    context.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + 4 * dx, y + 4 * dy);
      context.lineTo(x + 16 * dx, y + 16 * dy);
    }
    context.stroke();
  }
}

export { ACCENT };
