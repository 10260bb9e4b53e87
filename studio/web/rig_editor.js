// Keypoints and bones on the picture of a drawing. What is on the screen is `props.value`, a project as JSON.
const SIZE = 256, NS = 'http://www.w3.org/2000/svg';
const find = name => element.querySelector(`[data-rig=${name}]`);
const canvas = find('canvas'), bonesField = find('bones'), joining = find('joining'), said = find('said');
let rig = {drawing: '', keypoints: [], bones: []};
let chosen = null, dragged = null, onEmpty = false, asked = 0;

const made = (name, attributes) => {
  const node = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
};

const show = () => {
  canvas.replaceChildren();
  if (rig.drawing) {
    canvas.append(made('image', {href: `drawings/${rig.drawing}/picture`, width: SIZE, height: SIZE}));
  }
  for (const [a, b] of rig.bones) {
    const [[x1, y1], [x2, y2]] = [rig.keypoints[a], rig.keypoints[b]];
    canvas.append(made('line', {x1, y1, x2, y2}));
  }
  rig.keypoints.forEach(([cx, cy], number) => {
    const circle = made('circle', {cx, cy, r: 4, tabindex: 0, role: 'button', 'data-number': number});
    circle.setAttribute('aria-label', `Keypoint ${number} at ${Math.round(cx)}, ${Math.round(cy)}`);
    circle.classList.toggle('chosen', number === chosen);
    const label = made('text', {x: cx + 5, y: cy - 5});
    label.textContent = number;
    canvas.append(circle, label);
  });
  bonesField.value = rig.bones.map(bone => bone.join('-')).join(' ');
  for (const radio of element.querySelectorAll('[name=studio-drawing]')) radio.checked = radio.value === rig.drawing;
  props.value = JSON.stringify(rig);
};

const choose = number => {
  chosen = number;
  show();
  if (number !== null) canvas.querySelector(`[data-number="${number}"]`).focus({preventScroll: true});
};

const place = event => {
  const box = canvas.getBoundingClientRect();
  const inside = value => Math.round(Math.min(Math.max(value, 0), 1) * SIZE * 10) / 10;
  return [inside((event.clientX - box.left) / box.width), inside((event.clientY - box.top) / box.height)];
};
const distance = ([a, b], [c, d]) => Math.hypot(a - c, b - d);
const numberAt = event => event.target.dataset.number === undefined ? null : +event.target.dataset.number;

// Prim's algorithm: the shortest tree over all keypoints.
const tree = points => {
  const bones = [], inside = new Set(points.length ? [0] : []);
  while (inside.size < points.length) {
    let best = null;
    for (const a of inside) {
      points.forEach((point, b) => {
        const length = distance(points[a], point);
        if (!inside.has(b) && (best === null || length < best.length)) best = {a, b, length};
      });
    }
    inside.add(best.b);
    bones.push([best.a, best.b]);
  }
  return bones;
};

const add = point => {
  const lengths = rig.keypoints.map(other => distance(other, point));
  rig.keypoints.push(point);
  if (lengths.length) rig.bones.push([lengths.indexOf(Math.min(...lengths)), lengths.length]);
  choose(lengths.length);
};

const remove = number => {
  if (number === null) return;
  const around = rig.bones.filter(bone => bone.includes(number)).map(([a, b]) => a === number ? b : a);
  const left = rig.bones.filter(bone => !bone.includes(number));
  // What hung together there still does.
  const joined = [...left, ...around.slice(1).map(other => [around[0], other])];
  rig.bones = joined.map(bone => bone.map(other => other > number ? other - 1 : other));
  rig.keypoints.splice(number, 1);
  choose(null);
};

const joinOrPart = (a, b) => {
  const same = bone => bone.includes(a) && bone.includes(b);
  rig.bones = rig.bones.some(same) ? rig.bones.filter(bone => !same(bone)) : [...rig.bones, [a, b]];
};

const open = async name => {
  const turn = ++asked;
  said.textContent = 'Looking at it …';
  const answer = await fetch(`drawings/${name}/project`);
  if (turn !== asked) return;
  if (answer.ok) {
    const {keypoints, bones} = await answer.json();
    rig = {drawing: name, keypoints, bones};
    said.textContent = '';
    choose(null);
  } else said.textContent = await answer.text();
};

// Pictures are made small enough to be sent; curves go as they are.
const small = async file => {
  if (file.name.toLowerCase().endsWith('.svg')) return [file, file.name];
  const picture = await createImageBitmap(file), scale = Math.min(1, 512 / Math.max(picture.width, picture.height));
  const sheet = document.createElement('canvas');
  sheet.width = Math.round(picture.width * scale);
  sheet.height = Math.round(picture.height * scale);
  sheet.getContext('2d').drawImage(picture, 0, 0, sheet.width, sheet.height);
  const data = await new Promise(resolve => sheet.toBlob(resolve, 'image/webp', .9));
  return [data, 'drawing.' + data.type.split('/')[1]];
};

const send = async file => {
  if (!file) return;
  const turn = ++asked;
  said.textContent = 'Looking at it …';
  try {
    const [body, name] = await small(file);
    const answer = await fetch('drawings?name=' + encodeURIComponent(name), {method: 'POST', body});
    const text = await answer.text();
    if (turn !== asked) return;
    if (answer.ok) await open(text);
    else said.textContent = text;
  } catch {
    said.textContent = 'This is no picture that the browser can read; expected SVG, PNG, WebP or JPEG.';
  }
};

canvas.addEventListener('pointerdown', event => {
  const number = numberAt(event);
  onEmpty = number === null;
  if (onEmpty || !event.isPrimary) return;
  if (chosen !== null && chosen !== number && (joining.checked || event.shiftKey)) {
    joinOrPart(chosen, number);
    choose(null);
  } else {
    choose(number);
    dragged = joining.checked ? null : number;
    canvas.setPointerCapture(event.pointerId);
  }
  event.preventDefault();
});
canvas.addEventListener('pointermove', event => {
  if (dragged === null) return;
  rig.keypoints[dragged] = place(event);
  show();
});
canvas.addEventListener('pointerup', () => { dragged = null; });
canvas.addEventListener('click', event => {
  if (rig.drawing && onEmpty && !joining.checked) add(place(event));
});
canvas.addEventListener('focusin', event => {
  const number = numberAt(event);
  if (number !== null && number !== chosen) choose(number);
});
canvas.addEventListener('keydown', event => {
  const steps = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}, step = steps[event.key];
  if (chosen === null || !(step || ['Delete', 'Backspace'].includes(event.key))) return;
  event.preventDefault();
  if (!step) return remove(chosen);
  const inside = value => Math.min(Math.max(value, 0), SIZE);
  rig.keypoints[chosen] = rig.keypoints[chosen].map((value, axis) => inside(value + step[axis]));
  choose(chosen);
});
find('remove').addEventListener('click', () => remove(chosen));
find('again').addEventListener('click', () => rig.drawing && open(rig.drawing));
find('tree').addEventListener('click', () => { rig.bones = tree(rig.keypoints); show(); });
bonesField.addEventListener('change', () => {
  const bones = bonesField.value.trim().split(/[\s,]+/).filter(Boolean).map(word => word.split('-').map(Number));
  const fits = bones.every(bone => bone.length === 2 && bone.every(number => number in rig.keypoints));
  said.textContent = fits ? '' : `Expected pairs of keypoints from 0 to ${rig.keypoints.length - 1}, such as 0-1 1-2.`;
  if (fits) rig.bones = bones;
  show();
});
element.addEventListener('change', event => {
  if (event.target.name === 'studio-drawing') open(event.target.value);
  if (event.target.type === 'file') {
    send(event.target.files[0]);
    event.target.value = '';
  }
});
element.addEventListener('dragover', event => event.preventDefault());
element.addEventListener('drop', event => {
  event.preventDefault();
  send(event.dataTransfer.files[0]);
});
open(element.querySelector('[name=studio-drawing]').value);
