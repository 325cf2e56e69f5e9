// A picture with its answer drawn on it. Boxes are in [0, 1] of the upright picture, and so are masks.

const UNSEEN = { 1: 0xff, 2: 0xffff };
const MASK_ALPHA = 130;

/** A class's colour, [red, green, blue]: neighbours in number are far apart in hue. */
export function colour(index) {
  const hue = (index * 137.508 + 200) % 360;
  const channel = (offset) => {
    const k = (offset + hue / 30) % 12;
    return Math.round(255 * (0.52 - 0.40 * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [channel(0), channel(8), channel(4)];
}

export const css = (index) => `rgb(${colour(index).join(" ")})`;

/** Draws a picture at the size that it is shown at; the largest side has `most` pixels. */
export function drawPicture(canvas, picture, most = 1280) {
  const scale = Math.min(1, most / Math.max(picture.width, picture.height));
  canvas.width = Math.max(1, Math.round(picture.width * scale));
  canvas.height = Math.max(1, Math.round(picture.height * scale));
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
}

export function drawBoxes(canvas, boxes) {
  const context = canvas.getContext("2d");
  const line = Math.max(2, canvas.width / 300);
  context.font = `${Math.max(12, canvas.width / 45)}px system-ui, sans-serif`;
  context.textBaseline = "top";
  for (const { x, y, width, height, index, label } of boxes) {
    const [left, top] = [x * canvas.width, y * canvas.height];
    context.strokeStyle = css(index);
    context.lineWidth = line;
    context.strokeRect(left, top, width * canvas.width, height * canvas.height);
    drawLabel(context, label || String(index), left, top, css(index));
  }
}

function drawLabel(context, text, left, top, background) {
  const { width, actualBoundingBoxDescent: height } = context.measureText(text);
  context.fillStyle = background;
  context.fillRect(left, top, width + 8, height + 6);
  context.fillStyle = "#fff";
  context.fillText(text, left + 4, top + 3);
}

/** @param mask {class_map: Base64, class_bytes, width, height} */
export function drawMask(canvas, mask) {
  const layer = new OffscreenCanvas(mask.width, mask.height);
  const pixels = new ImageData(mask.width, mask.height);
  classes(mask).forEach((index, place) => {
    if (index !== UNSEEN[mask.class_bytes]) pixels.data.set([...colour(index), MASK_ALPHA], 4 * place);
  });
  layer.getContext("2d").putImageData(pixels, 0, 0);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(layer, 0, 0, canvas.width, canvas.height);
}

/** Rows from the top, the low byte first. */
function classes({ class_map, class_bytes }) {
  const bytes = Uint8Array.from(atob(class_map), (letter) => letter.charCodeAt(0));
  return class_bytes === 2 ? new Uint16Array(bytes.buffer) : bytes;
}
