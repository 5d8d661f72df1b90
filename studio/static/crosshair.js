// A crosshair on the stage that keys move and click with, for those who use no pointer.

/** Move the crosshair by CSS pixels; it appears in the middle of the selected object, or of what is seen. */
export function moveCrosshair(tools, dx, dy) {
  const { viewport } = tools.stage;
  if (!tools.crosshair) {
    const box = tools.store.selected === null ? null : tools.actions.cellOf(tools.store.selected)?.box;
    const middleOfStage = tools.toVideo([viewport.stage.width / 2, viewport.stage.height / 2]);
    tools.crosshair = box && box[2] > 0 ? [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2] : middleOfStage;
  } else {
    tools.crosshair = [tools.crosshair[0] + dx / viewport.scale, tools.crosshair[1] + dy / viewport.scale];
  }
  tools.crosshair = tools.clipped(tools.crosshair, 0.5);
  const [x, y] = viewport.toStage(...tools.crosshair);
  const out = (value, size) => (value < 16 ? 16 - value : value > size - 16 ? size - 16 - value : 0);
  if (out(x, viewport.stage.width) || out(y, viewport.stage.height)) tools.pan(out(x, viewport.stage.width), out(y, viewport.stage.height));
  tools.hoverHere();
  tools.stage.changed();
}

/** A click, or a dab of the brush, at the crosshair. */
export function clickCrosshair(tools, isNot) {
  if (!tools.crosshair || !tools.stage.isShown) return;
  tools.store.pause();
  if (!tools.isBrush) {
    tools.actions.click(...tools.crosshair, isNot);
    return;
  }
  tools.beginStroke(tools.stage.viewport.toStage(...tools.crosshair), isNot);
  if (tools.stroke) tools.actions.stroke(tools.stroke);
  tools.press = null;
}
