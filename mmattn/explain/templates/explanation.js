{
  const data = JSON.parse(document.getElementById("data").textContent);
  const by = selector => [...document.querySelectorAll(selector)];
  const layer = document.getElementById("layer"), head = document.getElementById("head");
  const units = new Map();
  for (const element of by(".unit")) {
    const number = Number(element.dataset.u);
    if (!units.has(number)) units.set(number, []);
    units.get(number).push(element);
  }
  const state = { measure: "rollout", from: null };
  const percent = value => `${(100 * value).toFixed(Math.abs(value) < .0995 ? 1 : 0)}%`;
  const signed = value => `${value < 0 ? "−" : "+"}${Number(Math.abs(value).toPrecision(3))}`;

  // The mean of a layer's heads is worked out here: it is not worth another copy in the page.
  const mean = heads => {
    const add = pick => heads.reduce((sum, one) => plus(sum, pick(one)), null);
    const scale = value => value === null ? null : Array.isArray(value) ? value.map(scale) : value / heads.length;
    return { total: scale(add(h => h.total)), rows: scale(add(h => h.rows)), flow: scale(add(h => h.flow)), agreement: null };
  };
  const plus = (a, b) => a === null ? b : b === null ? a : Array.isArray(a) ? a.map((x, i) => plus(x, b[i])) : a + b;

  const reading = () => {
    if (state.measure !== "rollout") return data.readings[state.measure];
    if (layer.value === "rollout" || layer.value === "pool") return data.readings[layer.value];
    const heads = data.layers[Number(layer.value)];
    return head.value === "mean" ? mean(heads) : heads[Number(head.value)];
  };

  const words = () => {
    if (state.measure === "left out") return "How much lower the score is without this part: orange counts for it, blue against it.";
    if (state.measure === "relevance") return "Attention, counted as far as it raises the score.";
    if (layer.value === "rollout") return "Attention, rolled out through all layers, as the joint vector reads it.";
    if (layer.value === "pool") return "What each token counts in the joint vector, before any layer is traced back.";
    return `Attention of layer ${Number(layer.value) + 1}, ${head.value === "mean" ? "mean of its heads" : `head ${Number(head.value) + 1}`}, as the joint vector reads it.`;
  };

  const show = () => {
    const now = reading(), left = state.measure === "left out";
    if (!now.rows) state.from = null;
    const values = state.from === null ? now.total : now.rows[state.from].map(value => value / 1000);
    const top = Math.max(...values.map(Math.abs), 1e-12);
    values.forEach((value, number) => {
      for (const element of units.get(number) || []) {
        element.style.setProperty("--v", (Math.abs(value) / top).toFixed(3));
        element.classList.toggle("minus", value < 0);
        element.classList.toggle("chosen", state.from === number);
        element.title = `${data.units[number][1]}: ${left ? signed(value) : percent(value)}`;
      }
    });
    data.there.forEach((index, place) => {
      const sum = values.reduce((total, value, number) => data.units[number][0] === index ? total + value : total, 0);
      const name = data.modalities[place];
      for (const element of by("[data-sum]")) if (element.dataset.sum === name) element.textContent = left ? "" : percent(sum);
    });
    for (const button of by("[data-measure]")) button.setAttribute("aria-pressed", button.dataset.measure === state.measure);
    layer.disabled = state.measure !== "rollout";
    head.disabled = layer.disabled || !/^\d+$/.test(layer.value);
    document.querySelector(".scale").classList.toggle("signed", left);
    document.getElementById("low").textContent = left ? signed(-top) : "0";
    document.getElementById("high").textContent = left ? signed(top) : percent(top);
    document.getElementById("from").hidden = state.from === null;
    if (state.from !== null) document.getElementById("whole").textContent = data.units[state.from][1];
    const agrees = now.agreement === null || state.from !== null ? "" : ` Agreement with leaving parts out: ${now.agreement <= -.005 ? "−" : now.agreement >= .005 ? "+" : ""}${Math.abs(now.agreement).toFixed(2)}.`;
    const tap = state.from === null && now.rows ? " Tap a word, patch, stretch or value to see where it looks." : "";
    document.getElementById("says").textContent = state.from === null ? words() + agrees + tap : "looks at this. " + words().replace(/, as the joint.*/, ".");
    matrix(now);
    small();
  };

  const matrix = now => {
    const table = document.getElementById("matrix");
    table.replaceChildren();
    document.getElementById("flow-of").textContent = now.flow ? words() : "This measure has no flow; choose attention, and a layer.";
    if (!now.flow) return;
    const top = table.createTHead().insertRow();
    top.append(document.createElement("td"));
    top.cells[0].style.visibility = "hidden";
    const header = (row, text, scope) => { const th = document.createElement("th"); th.textContent = text; th.scope = scope; row.append(th); };
    for (const name of data.modalities) header(top, name, "col");
    const body = table.createTBody();
    now.flow.forEach((values, index) => {
      const row = body.insertRow();
      header(row, `${data.modalities[index]} →`, "row");
      for (const value of values) {
        const cell = row.insertCell();
        cell.textContent = percent(value);
        cell.style.setProperty("--v", value.toFixed(3));
      }
    });
  };

  // One small picture a head: the same matrix, and the way to choose that head.
  const draw = flow => {
    const size = flow.length, cells = flow.flatMap((row, i) => row.map((value, j) =>
      `<rect x="${j}" y="${i}" width=".94" height=".94" rx=".08" fill-opacity="${(.06 + .94 * value).toFixed(3)}"/>`));
    return `<svg viewBox="0 0 ${size} ${size}" aria-hidden="true">${cells.join("")}</svg>`;
  };
  const small = () => {
    const box = document.getElementById("small");
    if (!box.children.length) data.layers.forEach((heads, l) => heads.forEach((one, h) => {
      const button = document.createElement("button");
      button.type = "button";
      button.innerHTML = draw(one.flow) + `<span>layer ${l + 1}, head ${h + 1}</span>`;
      button.addEventListener("click", () => { state.measure = "rollout"; layer.value = l; head.value = h; show(); });
      button.dataset.key = `${l}/${h}`;
      box.append(button);
    }));
    for (const button of box.children)
      button.setAttribute("aria-pressed", state.measure === "rollout" && button.dataset.key === `${layer.value}/${head.value}`);
  };

  for (const button of by("[data-measure]")) button.addEventListener("click", () => { state.measure = button.dataset.measure; show(); });
  layer.addEventListener("change", show);
  head.addEventListener("change", show);
  document.getElementById("whole").addEventListener("click", () => { state.from = null; show(); });
  const choose = element => { const number = Number(element.dataset.u); state.from = state.from === number ? null : number; show(); };
  for (const element of by(".unit")) {
    element.addEventListener("click", () => choose(element));
    if (element.tagName !== "BUTTON") element.addEventListener("keydown", event => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(element); }
    });
  }
  for (const sound of by(".panel.audio")) {
    const audio = sound.querySelector("audio"), line = sound.querySelector(".head");
    if (!audio) continue;
    const follow = () => { line.style.left = `${100 * audio.currentTime / audio.duration}%`; line.style.opacity = audio.paused && !audio.currentTime ? 0 : 1; if (!audio.paused) requestAnimationFrame(follow); };
    for (const event of ["play", "pause", "seeked"]) audio.addEventListener(event, follow);
  }
  show();
}
