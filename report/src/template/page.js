"use strict";
(() => {
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  };

  // Curves: the value under the pointer, or the last one.
  for (const chart of document.querySelectorAll(".chart")) {
    const points = JSON.parse(chart.dataset.points);
    const svg = chart.querySelector("svg"), out = chart.querySelector("output");
    const cursor = chart.querySelector(".cursor"), last = out.textContent;
    const [line, circle] = cursor.children;
    const show = (event) => {
      const box = svg.getBoundingClientRect();
      const x = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
      const near = points.reduce((a, b) => Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a);
      cursor.removeAttribute("hidden");
      line.setAttribute("x1", near[0]); line.setAttribute("x2", near[0]);
      circle.setAttribute("cx", near[0]); circle.setAttribute("cy", near[1]);
      out.textContent = near[2];
    };
    svg.addEventListener("pointermove", show);
    svg.addEventListener("pointerdown", show);
    svg.addEventListener("pointerleave", () => {
      cursor.setAttribute("hidden", "");
      out.textContent = last;
    });
  }

  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.getElementById("map");
  if (!data || !root) return;

  // Twenty hues that keep apart on white and on near-black; more classes begin again.
  const palette = ["#3b7dc4", "#e0772b", "#3f9e57", "#d0474a", "#8f6bc0", "#96694f", "#d765ab",
    "#85898d", "#a9a629", "#2aa7b8", "#1f5fa0", "#c79a1b", "#7bb661", "#e58a86", "#b39bd8",
    "#5b7f2e", "#b0427a", "#5fa8e0", "#b5561c", "#4f8f8b"];
  const labeled = data.labels.length > 0;
  const color = (i) => labeled ? palette[data.labels[i] % palette.length] : css("--accent");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const n = data.ids.length;

  const canvas = make("canvas", { role: "img", "aria-label":
    `Map of ${n} photos by their features. Photos the model finds alike lie close together.` });
  const tip = make("div", { class: "tip", hidden: "" });
  const stage = make("div", { class: "stage" }, canvas, tip);
  const tools = make("div", { class: "tools" });
  root.append(tools, stage);
  const pen = canvas.getContext("2d");

  const layoutCount = data.layouts.length;
  let shown = layoutCount - 1, blend = shown, frame = 0;
  let pictures = false, only = -1, hovered = -1;
  let view = { scale: 1, x: 0, y: 0 };
  let images = null;

  const group = (label, ...buttons) =>
    tools.append(make("div", { class: "group", role: "group", "aria-label": label }, ...buttons));
  const button = (text, label, act) => {
    const node = make("button", { type: "button" }, text);
    if (label) { node.setAttribute("aria-label", label); node.title = label; }
    node.addEventListener("click", act);
    return node;
  };
  const press = (nodes, at) =>
    nodes.forEach((node, i) => node.setAttribute("aria-pressed", String(i === at)));

  if (layoutCount > 1) {
    const buttons = data.names.map((name, i) => button(name, "", () => { press(buttons, i); go(i); }));
    press(buttons, shown);
    group("Weights", ...buttons);
  }
  if (data.thumbnails.some(Boolean)) {
    const kinds = ["Dots", "Photos"].map((name, i) => button(name, "", () => {
      pictures = i === 1;
      press(kinds, i);
      draw();
    }));
    pictures = window.innerWidth > 700;
    press(kinds, pictures ? 1 : 0);
    group("Draw as", ...kinds);
  }
  group("Zoom", button("\u2212", "Zoom out", () => zoom(1 / 1.5)), button("+", "Zoom in", () => zoom(1.5)),
    button("Reset", "Reset the zoom", () => { view = { scale: 1, x: 0, y: 0 }; settle(); }));

  if (labeled) {
    const items = data.classes.map((name, i) => {
      const node = button(name, "", () => {
        only = only === i ? -1 : i;
        press(items, only);
        draw();
      });
      node.style.setProperty("--class", palette[i % palette.length]);
      return node;
    });
    press(items, -1);
    root.append(make("ul", { class: "legend", "aria-label": "Classes: choose one to see it alone" },
      ...items.map((node) => make("li", {}, node))));
  }

  const size = () => ({ w: stage.clientWidth, h: stage.clientHeight });
  const place = (i) => {
    const { w, h } = size(), edge = 30;
    const low = Math.floor(blend), high = Math.min(low + 1, layoutCount - 1), t = blend - low;
    const at = (c) => data.layouts[low][i][c] * (1 - t) + data.layouts[high][i][c] * t;
    return [
      (edge + at(0) * (w - 2 * edge)) * view.scale + view.x,
      (edge + (1 - at(1)) * (h - 2 * edge)) * view.scale + view.y,
    ];
  };

  function load() {
    images = data.thumbnails.map((source) => {
      if (!source) return null;
      const image = new Image();
      image.onload = draw;
      image.src = source;
      return image;
    });
  }

  function draw() {
    if (!frame) frame = requestAnimationFrame(paint);
  }

  function paint() {
    frame = 0;
    const { w, h } = size(), ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
      canvas.width = Math.round(w * ratio);
      canvas.height = Math.round(h * ratio);
    }
    if (pictures && !images) load();
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.fillStyle = css("--card");
    pen.fillRect(0, 0, w, h);
    const paper = css("--card");
    // The crowd sets the size: about a third of the stage is covered at first.
    const fair = Math.sqrt(w * h / n / 3);
    const side = Math.min(96, Math.max(16, Math.min(44, fair)) * Math.pow(view.scale, 0.75));
    const radius = Math.min(9, Math.max(3.2, Math.min(6, fair / 5)) * Math.pow(view.scale, 0.4));
    const dimmed = (i) => only >= 0 && data.labels[i] !== only;
    const order = [...Array(n).keys()].sort((a, b) => dimmed(b) - dimmed(a));
    if (hovered >= 0) order.push(hovered);
    for (const i of order) {
      const [x, y] = place(i);
      if (x < -60 || y < -60 || x > w + 60 || y > h + 60) continue;
      pen.globalAlpha = dimmed(i) && i !== hovered ? 0.12 : 1;
      const image = pictures && images[i];
      if (image && image.complete && image.naturalWidth) {
        const long = Math.max(image.naturalWidth, image.naturalHeight);
        const iw = image.naturalWidth / long * side, ih = image.naturalHeight / long * side;
        const border = labeled || i === hovered ? 2 : 0;
        pen.fillStyle = i === hovered ? css("--ink") : color(i);
        pen.fillRect(x - iw / 2 - border, y - ih / 2 - border, iw + 2 * border, ih + 2 * border);
        pen.drawImage(image, x - iw / 2, y - ih / 2, iw, ih);
      } else {
        pen.beginPath();
        pen.arc(x, y, i === hovered ? radius + 2 : radius, 0, 2 * Math.PI);
        pen.fillStyle = color(i);
        pen.fill();
        pen.lineWidth = 1;
        pen.strokeStyle = i === hovered ? css("--ink") : paper;
        pen.stroke();
      }
    }
    pen.globalAlpha = 1;
  }

  function go(target) {
    const from = blend, start = performance.now();
    shown = target;
    hide();
    if (window.matchMedia("(prefers-reduced-motion: reduce)").matches) {
      blend = target;
      draw();
      return;
    }
    const turn = (now) => {
      if (shown !== target) return;
      const t = Math.min(1, Math.max(0, (now - start) / 700));
      blend = from + (target - from) * (t * t * (3 - 2 * t));
      draw();
      if (t < 1) requestAnimationFrame(turn);
    };
    requestAnimationFrame(turn);
  }

  // Zooming keeps the given place, or the middle, where it is; the map never leaves the stage.
  function zoom(factor, cx = size().w / 2, cy = size().h / 2) {
    const scale = Math.min(16, Math.max(1, view.scale * factor));
    const f = scale / view.scale;
    view = { scale, x: cx - (cx - view.x) * f, y: cy - (cy - view.y) * f };
    settle();
  }
  function settle() {
    const { w, h } = size();
    view.x = Math.min(0, Math.max(w * (1 - view.scale), view.x));
    view.y = Math.min(0, Math.max(h * (1 - view.scale), view.y));
    canvas.style.touchAction = view.scale > 1 ? "none" : "pan-y";
    hide();
    draw();
  }

  function hide() {
    hovered = -1;
    tip.hidden = true;
  }

  function point(event) {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  function hover(event) {
    const [px, py] = point(event);
    let best = -1, distance = pictures ? 30 : 18;
    for (let i = 0; i < n; i++) {
      if (only >= 0 && data.labels[i] !== only) continue;
      const [x, y] = place(i), d = Math.hypot(x - px, y - py);
      if (d < distance) { distance = d; best = i; }
    }
    if (best === hovered) return;
    if (best < 0) { hide(); draw(); return; }
    hovered = best;
    tip.replaceChildren();
    if (data.thumbnails[best]) tip.append(make("img", { src: data.thumbnails[best], alt: "" }));
    if (labeled) tip.append(make("b", {}, data.classes[data.labels[best]]));
    tip.append(make("span", {}, data.ids[best]));
    tip.hidden = false;
    const { w, h } = size(), [x, y] = place(best);
    const tw = tip.offsetWidth, th = tip.offsetHeight;
    tip.style.left = `${Math.min(w - tw - 4, Math.max(4, x + 24 + tw > w ? x - tw - 24 : x + 24))}px`;
    tip.style.top = `${Math.min(h - th - 4, Math.max(4, y - th / 2))}px`;
    draw();
  }

  const fingers = new Map();
  canvas.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, point(event));
    if (event.pointerType === "mouse" || view.scale > 1) canvas.setPointerCapture(event.pointerId);
    hover(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) { hover(event); return; }
    const now = point(event);
    const other = [...fingers].find(([id]) => id !== event.pointerId);
    if (other) {
      const reach = (p) => Math.hypot(p[0] - other[1][0], p[1] - other[1][1]);
      zoom(reach(now) / Math.max(1, reach(before)), other[1][0], other[1][1]);
    } else if (view.scale > 1) {
      view.x += now[0] - before[0];
      view.y += now[1] - before[1];
      settle();
    }
    fingers.set(event.pointerId, now);
  });
  for (const kind of ["pointerup", "pointercancel"])
    canvas.addEventListener(kind, (event) => fingers.delete(event.pointerId));
  canvas.addEventListener("pointerleave", () => { hide(); draw(); });
  // A plain wheel scrolls the page; with Ctrl (and a pinch on a touchpad) it zooms.
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 200), ...point(event));
  }, { passive: false });
  canvas.addEventListener("dblclick", (event) => zoom(2, ...point(event)));

  new ResizeObserver(draw).observe(stage);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  window.addEventListener("beforeprint", () => { frame = 0; paint(); });
  draw();
})();
