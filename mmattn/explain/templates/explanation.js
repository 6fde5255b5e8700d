{
  const data = JSON.parse(document.getElementById("data").textContent);
  const by = selector => [...document.querySelectorAll(selector)];
  const layer = document.getElementById("layer"), head = document.getElementById("head");
  const spans = new Map();
  for (const element of by(".unit")) {
    const number = Number(element.dataset.u);
    if (!spans.has(number)) spans.set(number, []);
    spans.get(number).push(element);
  }
  const state = { method: "rollout", selected: null };
  const percent = value => `${(100 * value).toFixed(Math.abs(value) < .0995 ? 1 : 0)}%`;
  const signed = value => `${value < 0 ? "−" : "+"}${Number(Math.abs(value).toPrecision(3))}`;

  // The mean over the heads of a layer is computed here to keep the page small.
  const mean = heads => {
    const add = pick => heads.reduce((sum, head) => plus(sum, pick(head)), null);
    const scale = value => value === null ? null : Array.isArray(value) ? value.map(scale) : value / heads.length;
    return { total: scale(add(h => h.total)), rows: scale(add(h => h.rows)), flow: scale(add(h => h.flow)), agreement: null };
  };
  const plus = (a, b) => a === null ? b : b === null ? a : Array.isArray(a) ? a.map((x, i) => plus(x, b[i])) : a + b;

  const attribution = () => {
    if (state.method !== "rollout") return data.attributions[state.method];
    if (layer.value === "rollout" || layer.value === "pool") return data.attributions[layer.value];
    const heads = data.layers[Number(layer.value)];
    return head.value === "mean" ? mean(heads) : heads[Number(head.value)];
  };

  const description = () => {
    if (state.method === "leave_out") return "Decrease of the score without this part: orange parts raise the score, blue parts lower it.";
    if (state.method === "relevance") return "Attention times positive gradient: attention that raises the score.";
    if (layer.value === "rollout") return "Attention of the joint vector, rolled out through all layers.";
    if (layer.value === "pool") return "Pooling weight of each token in the joint vector, not traced through the layers.";
    return `Attention of the joint vector in layer ${Number(layer.value) + 1}, ${head.value === "mean" ? "mean of its heads" : `head ${Number(head.value) + 1}`}.`;
  };

  const show = () => {
    const current = attribution(), left = state.method === "leave_out";
    if (!current.rows) state.selected = null;
    const values = state.selected === null ? current.total : current.rows[state.selected].map(value => value / 1000);
    const top = Math.max(...values.map(Math.abs), 1e-12);
    values.forEach((value, number) => {
      for (const element of spans.get(number) || []) {
        element.style.setProperty("--v", (Math.abs(value) / top).toFixed(3));
        element.classList.toggle("minus", value < 0);
        element.classList.toggle("chosen", state.selected === number);
        element.title = `${data.spans[number][1]}: ${left ? signed(value) : percent(value)}`;
      }
    });
    data.present.forEach((index, row) => {
      const sum = values.reduce((total, value, number) => data.spans[number][0] === index ? total + value : total, 0);
      const name = data.modalities[row];
      for (const element of by("[data-sum]")) if (element.dataset.sum === name) element.textContent = left ? "" : percent(sum);
    });
    for (const button of by("[data-method]")) button.setAttribute("aria-pressed", button.dataset.method === state.method);
    layer.disabled = state.method !== "rollout";
    head.disabled = layer.disabled || !/^\d+$/.test(layer.value);
    document.querySelector(".scale").classList.toggle("signed", left);
    document.getElementById("low").textContent = left ? signed(-top) : "0";
    document.getElementById("high").textContent = left ? signed(top) : percent(top);
    document.getElementById("selection").hidden = state.selected === null;
    if (state.selected !== null) document.getElementById("clear").textContent = data.spans[state.selected][1];
    const agreement = current.agreement === null || state.selected !== null ? "" : ` Rank correlation with leaving parts out: ${current.agreement <= -.005 ? "−" : current.agreement >= .005 ? "+" : ""}${Math.abs(current.agreement).toFixed(2)}.`;
    const hint = state.selected === null && current.rows ? " Select a word, patch, time range or value to see what it attends to." : "";
    document.getElementById("description").textContent = state.selected === null ? description() + agreement + hint : "attends to this. " + description().replace(" of the joint vector", "");
    matrix(current);
    small();
  };

  const matrix = current => {
    const table = document.getElementById("matrix");
    table.replaceChildren();
    document.getElementById("flow-of").textContent = current.flow ? description() : "This method has no attention between modalities; choose attention and a layer.";
    if (!current.flow) return;
    const top = table.createTHead().insertRow();
    top.append(document.createElement("td"));
    top.cells[0].style.visibility = "hidden";
    const header = (row, text, scope) => { const th = document.createElement("th"); th.textContent = text; th.scope = scope; row.append(th); };
    for (const name of data.modalities) header(top, name, "col");
    const body = table.createTBody();
    current.flow.forEach((values, index) => {
      const row = body.insertRow();
      header(row, `${data.modalities[index]} →`, "row");
      for (const value of values) {
        const cell = row.insertCell();
        cell.textContent = percent(value);
        cell.style.setProperty("--v", value.toFixed(3));
      }
    });
  };

  // One thumbnail per head: the same matrix, and a button that selects the head.
  const draw = flow => {
    const size = flow.length, cells = flow.flatMap((row, i) => row.map((value, j) =>
      `<rect x="${j}" y="${i}" width=".94" height=".94" rx=".08" fill-opacity="${(.06 + .94 * value).toFixed(3)}"/>`));
    return `<svg viewBox="0 0 ${size} ${size}" aria-hidden="true">${cells.join("")}</svg>`;
  };
  const small = () => {
    const box = document.getElementById("small");
    if (!box.children.length) data.layers.forEach((heads, l) => heads.forEach((attribution, h) => {
      const button = document.createElement("button");
      button.type = "button";
      button.innerHTML = draw(attribution.flow) + `<span>layer ${l + 1}, head ${h + 1}</span>`;
      button.addEventListener("click", () => { state.method = "rollout"; layer.value = l; head.value = h; show(); });
      button.dataset.key = `${l}/${h}`;
      box.append(button);
    }));
    for (const button of box.children)
      button.setAttribute("aria-pressed", state.method === "rollout" && button.dataset.key === `${layer.value}/${head.value}`);
  };

  for (const button of by("[data-method]")) button.addEventListener("click", () => { state.method = button.dataset.method; show(); });
  layer.addEventListener("change", show);
  head.addEventListener("change", show);
  document.getElementById("clear").addEventListener("click", () => { state.selected = null; show(); });
  const choose = element => { const number = Number(element.dataset.u); state.selected = state.selected === number ? null : number; show(); };
  for (const element of by(".unit")) {
    element.addEventListener("click", () => choose(element));
    if (element.tagName !== "BUTTON") element.addEventListener("keydown", event => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(element); }
    });
  }
  for (const panel of by(".panel.audio")) {
    const audio = panel.querySelector("audio"), line = panel.querySelector(".head");
    if (!audio) continue;
    const follow = () => { line.style.left = `${100 * audio.currentTime / audio.duration}%`; line.style.opacity = audio.paused && !audio.currentTime ? 0 : 1; if (!audio.paused) requestAnimationFrame(follow); };
    for (const event of ["play", "pause", "seeked"]) audio.addEventListener(event, follow);
  }
  show();
}
