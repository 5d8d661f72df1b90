// The stage: for now, the frame alone.

export function mountStage(element, store) {
  const canvas = document.createElement("canvas");
  canvas.width = store.state.width;
  canvas.height = store.state.height;
  element.append(canvas);
  const draw = () => {
    const frame = store.frames.get(store.frame);
    if (frame) canvas.getContext("2d").drawImage(frame, 0, 0, canvas.width, canvas.height);
  };
  for (const name of ["frame", "frames"]) store.on(name, draw);
  draw();
}
