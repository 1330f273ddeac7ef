const shown = (v) => !Number.isFinite(v) ? String(v) :
  Number.isInteger(v) ? v.toLocaleString('en') :
  Math.abs(v) >= 1e5 || Math.abs(v) < 1e-3 ? v.toExponential(2) : String(+v.toPrecision(4));
const svgNode = (tag, attributes) => {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [k, v] of Object.entries(attributes)) node.setAttribute(k, v);
  return node;
};
// Width, height and the margins left, right, top, bottom of every drawing: chart.py.
const [W, H, L, R, T, B] = JSON.parse(document.body.dataset.geometry);
for (const card of document.querySelectorAll('.chart')) {
  const lines = JSON.parse(card.querySelector('script').textContent);
  const tip = card.querySelector('.tip');
  for (const button of card.querySelectorAll('.scale button')) {
    button.addEventListener('click', () => {
      for (const b of card.querySelectorAll('.scale button'))
        b.setAttribute('aria-pressed', String(b === button));
      for (const svg of card.querySelectorAll('.plot svg'))
        svg.toggleAttribute('hidden', svg.dataset.log !== button.dataset.log);
    });
  }
  for (const svg of card.querySelectorAll('.plot svg')) {
    const [x0, x1, y0, y1] = JSON.parse(svg.dataset.domain);
    const log = svg.dataset.log === '1', f = log ? Math.log : (v) => v;
    const px = (x) => L + (x - x0) / (x1 - x0) * (W - L - R);
    const py = (y) => H - B - (f(y) - f(y0)) / (f(y1) - f(y0)) * (H - T - B);
    const hover = svg.querySelector('.hover');
    const leave = () => { hover.replaceChildren(); tip.hidden = true; };
    svg.addEventListener('pointerleave', leave);
    svg.addEventListener('pointermove', (event) => {
      const box = svg.getBoundingClientRect();
      const at = x0 + ((event.clientX - box.left) / box.width * W - L) / (W - L - R) * (x1 - x0);
      let step = null;
      for (const line of lines) for (const [x] of line.points)
        if (step === null || Math.abs(x - at) < Math.abs(step - at)) step = x;
      if (step === null) return leave();
      hover.replaceChildren(svgNode('line', {x1: px(step), x2: px(step), y1: T, y2: H - B}));
      const head = document.createElement('em');
      head.textContent = 'step ' + step.toLocaleString('en');
      tip.replaceChildren(head);
      for (const line of lines) {
        const near = line.points.reduce(
          (a, b) => Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a, [Infinity, NaN]);
        if (!Number.isFinite(near[0])) continue;
        const color = `var(--s${line.color})`;
        if (!log || near[1] > 0) {
          const dot = svgNode('circle', {cx: px(near[0]), cy: py(near[1]), r: 4.5});
          dot.style.fill = color;
          hover.append(dot);
        }
        const row = document.createElement('div'), mark = document.createElement('i');
        const name = document.createElement('span'), value = document.createElement('b');
        mark.style.background = color;
        name.append(mark, line.name + (near[0] === step ? '' : ' @ ' + near[0].toLocaleString('en')));
        value.textContent = shown(near[1]);
        row.append(name, value);
        tip.append(row);
      }
      tip.hidden = false;
      const x = px(step) / W * box.width;
      const flip = x + tip.offsetWidth + 24 > box.width;
      tip.style.left = (flip ? x - tip.offsetWidth - 12 : x + 12) + 'px';
    });
  }
}
const dialog = document.querySelector('dialog');
for (const image of document.querySelectorAll('.figure img')) {
  image.addEventListener('click', () => {
    dialog.querySelector('img').src = image.src;
    dialog.showModal();
  });
}
dialog.addEventListener('click', () => dialog.close());
for (const button of document.querySelectorAll('pre button')) {
  button.addEventListener('click', async () => {
    await navigator.clipboard.writeText(button.parentElement.querySelector('code').textContent);
    button.textContent = 'copied';
    setTimeout(() => { button.textContent = 'copy'; }, 1500);
  });
}
