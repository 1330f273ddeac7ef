"""The style sheet and the script of report.html: no network, no library."""

CSS = """
:root {
  color-scheme: light dark;
  --bg: #f6f6f4; --card: #ffffff; --ink: #15181e; --ink2: #545b68; --ink3: #858c99;
  --line: #e4e4df; --grid: #eeeeea; --soft: #f3f3f0; --mark: #fff3d6; --markink: #8a5a00;
  --good: #16794f; --goodbg: #e2f4ea; --wait: #945c00; --waitbg: #fdf0d5;
  --s0: #2463c5; --s1: #d9631e; --s2: #0d8f70; --s3: #8250c4; --s4: #c22f72; --s5: #7a7408;
  --t0: #8250c4; --t1: #0d8f70; --t2: #2463c5; --t3: #d9631e; --t4: #c22f72; --t5: #7a7408;
  --other: #9aa0ab;
  --mono: ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --bg: #0f1115; --card: #171a21; --ink: #eceef3; --ink2: #a8afbd; --ink3: #788191;
    --line: #282d37; --grid: #222730; --soft: #1e222a; --mark: #3a2f14; --markink: #f1c766;
    --good: #63d69c; --goodbg: #14301f; --wait: #f1c766; --waitbg: #33290f;
    --s0: #6ba4ff; --s1: #ff9a55; --s2: #3ccfa2; --s3: #b893f5; --s4: #f27fb1; --s5: #d5cd4f;
    --t0: #8f68d0; --t1: #1f9d7c; --t2: #3f7bd9; --t3: #d6702e; --t4: #c94b85; --t5: #8f891d;
    --other: #5d6573;
  }
}
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body {
  margin: 0; background: var(--bg); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial,
    'DejaVu Sans', sans-serif;
  -webkit-font-smoothing: antialiased; text-rendering: optimizeLegibility;
}
main { max-width: 1160px; margin: 0 auto; padding: 40px 24px 64px; }
h1, h2, h3, p, ul, figure, dl { margin: 0; padding: 0; }
ul { list-style: none; }
h1 { font-size: 34px; line-height: 1.15; font-weight: 680; letter-spacing: -0.022em;
  overflow-wrap: anywhere; }
h2 { font-size: 19px; font-weight: 650; letter-spacing: -0.01em; margin: 44px 0 14px; }
h3 { font-size: 14px; font-weight: 620; }
header .over { display: flex; justify-content: space-between; align-items: center;
  color: var(--ink3); font-size: 13px; margin-bottom: 10px; }
header .sub { color: var(--ink2); margin-top: 8px; overflow-wrap: anywhere; }
header .sub span + span::before { content: '·'; color: var(--ink3); margin: 0 8px; }
.status { display: inline-flex; align-items: center; gap: 7px; padding: 3px 11px 3px 9px;
  border-radius: 99px; font-weight: 600; }
.status::before { content: ''; width: 8px; height: 8px; border-radius: 50%;
  background: currentColor; }
.status.done { color: var(--good); background: var(--goodbg); }
.status.open { color: var(--wait); background: var(--waitbg); }
.banner { margin-top: 18px; padding: 12px 16px; border-radius: 10px; color: var(--wait);
  background: var(--waitbg); }
.banner .bar { height: 6px; border-radius: 3px; margin-top: 8px; overflow: hidden;
  background: color-mix(in srgb, var(--wait) 22%, transparent); }
.banner .bar i { display: block; height: 100%; background: var(--wait); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(158px, 1fr));
  gap: 12px; margin-top: 24px; }
.cards .card { padding: 14px 16px 12px; display: flex; flex-direction: column; }
.cards .label { color: var(--ink2); font-size: 13px; overflow-wrap: anywhere; }
.cards .value { font-size: 27px; line-height: 1.25; font-weight: 640;
  letter-spacing: -0.02em; font-variant-numeric: tabular-nums; margin-top: 2px; }
.cards .value small { font-size: 15px; font-weight: 500; color: var(--ink2);
  letter-spacing: 0; margin-left: 3px; }
.cards .more { color: var(--ink3); font-size: 12.5px; margin-top: auto; padding-top: 4px; }
.spark { width: 100%; height: 28px; margin-top: 8px; overflow: visible; }
.spark path { fill: none; stroke-width: 1.5; vector-effect: non-scaling-stroke; }
.grid2 { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 14px; }
@media (max-width: 820px) { .grid2 { grid-template-columns: minmax(0, 1fr); } }
.grid2 { grid-auto-flow: dense; }
.wide { grid-column: 1 / -1; }
.chart { padding: 14px 16px 10px; min-width: 0; }
.chart figcaption { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 16px;
  min-height: 27px; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 13px;
  color: var(--ink2); flex: 1; }
.legend b { color: var(--ink); font-weight: 600; font-variant-numeric: tabular-nums; }
i { display: inline-block; }
.legend i, .tip i { width: 12px; height: 3px; border-radius: 2px; margin-right: 6px;
  vertical-align: middle; }
.scale { display: inline-flex; border: 1px solid var(--line); border-radius: 7px;
  overflow: hidden; }
button { font: inherit; font-size: 12px; color: var(--ink2); background: none; border: 0;
  padding: 2px 9px; cursor: pointer; }
button:hover { color: var(--ink); }
button[aria-pressed=true] { background: var(--soft); color: var(--ink); font-weight: 600; }
.plot { position: relative; margin-top: 6px; }
.plot svg { display: block; width: 100%; height: auto; touch-action: pan-y; }
.grid { stroke: var(--grid); fill: none; }
.axis { stroke: var(--line); fill: none; }
.tick { fill: var(--ink3); font-size: 11.5px; font-variant-numeric: tabular-nums; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.raw { fill: none; stroke-width: 1; opacity: 0.32; stroke-linejoin: round; }
.band { opacity: 0.16; stroke: none; }
.dot { stroke: var(--card); stroke-width: 1.5; }
.hover line { stroke: var(--ink3); stroke-dasharray: 3 3; }
.hover circle { stroke: var(--card); stroke-width: 2; }
.tip { position: absolute; top: 6px; pointer-events: none; z-index: 2; padding: 7px 11px;
  background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  box-shadow: 0 4px 18px rgb(0 0 0 / 0.14); font-size: 12.5px; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.tip em { font-style: normal; color: var(--ink3); }
.tip div { display: flex; align-items: center; justify-content: space-between; gap: 14px; }
.note { color: var(--ink3); font-size: 12px; margin-top: 2px; }
.figure { padding: 14px 16px 16px; }
.figure img { display: block; width: 100%; margin-top: 10px; border-radius: 6px;
  cursor: zoom-in; background: #fff; }
@media (prefers-color-scheme: dark) { .figure img { filter: brightness(0.93); } }
dialog { border: 0; padding: 0; background: none; max-width: 96vw; max-height: 96vh; }
dialog::backdrop { background: rgb(0 0 0 / 0.72); }
dialog img { display: block; max-width: 96vw; max-height: 96vh; min-width: min(900px, 92vw);
  object-fit: contain; background: #fff; border-radius: 8px; cursor: zoom-out; }
.box { padding: 18px; }
.shares { display: flex; height: 34px; border-radius: 8px; overflow: hidden; gap: 2px; }
.shares span { flex-basis: 0; min-width: 2px; color: #fff; font-size: 12.5px;
  font-weight: 600; display: flex; align-items: center; justify-content: center;
  overflow: hidden; white-space: nowrap; }
.parts { display: flex; flex-wrap: wrap; gap: 8px 28px; margin-top: 14px; font-size: 13.5px;
  color: var(--ink2); font-variant-numeric: tabular-nums; }
.parts i { width: 10px; height: 10px; border-radius: 3px; margin-right: 7px; }
.parts b { color: var(--ink); font-weight: 600; margin: 0 7px; }
.parts em { font-style: normal; color: var(--ink3); }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th { text-align: left; font-weight: 500; color: var(--ink2); padding-right: 16px; }
td { font-family: var(--mono); font-size: 12.5px; overflow-wrap: anywhere; }
th, td { padding: 5px 8px; border-bottom: 1px solid var(--grid); vertical-align: top; }
tr:last-child > * { border-bottom: 0; }
tr.changed > * { background: var(--mark); }
tr.changed td:first-of-type { color: var(--markink); font-weight: 650; }
td.was { color: var(--ink3); }
td.none { color: var(--ink3); }
.box h3 { margin-bottom: 8px; }
.box h3:not(:first-child) { margin-top: 22px; }
pre { position: relative; margin: 0; padding: 12px 14px; background: var(--soft);
  border-radius: 8px; font: 12.5px/1.55 var(--mono); white-space: pre-wrap;
  overflow-wrap: anywhere; }
pre + * { margin-top: 10px; }
pre button { position: absolute; top: 6px; right: 6px; background: var(--card);
  border: 1px solid var(--line); border-radius: 6px; }
details summary { cursor: pointer; color: var(--ink2); margin: 16px 0; }
footer { margin-top: 40px; color: var(--ink3); font-size: 13px; }
@media print { .scale, pre button { display: none; } .card { break-inside: avoid; } }
"""

JS = """
const shown = (v) => !Number.isFinite(v) ? String(v) :
  Number.isInteger(v) ? v.toLocaleString('en') :
  Math.abs(v) >= 1e5 || Math.abs(v) < 1e-3 ? v.toExponential(2) : String(+v.toPrecision(4));
const svgNode = (tag, attributes) => {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [k, v] of Object.entries(attributes)) node.setAttribute(k, v);
  return node;
};
const [W, H, L, R, T, B] = GEOMETRY;
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
"""
