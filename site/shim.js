// Jupyter's part in a plain page: every explorer on its saved state, without Python. What the page computes, it does.
const { modules, models } = JSON.parse(document.getElementById("explorers").textContent);
const style = document.createElement("style");
style.textContent = modules.css;
document.head.append(style);
const module = import(URL.createObjectURL(new Blob([modules.esm], { type: "text/javascript" })));

function modelOf(saved) {
  const state = { ...saved };
  const listeners = {};
  return {
    get: (name) => state[name],
    set(name, value) {
      state[name] = value;
      (listeners[`change:${name}`] ?? []).forEach((listener) => listener());
    },
    on: (event, listener) => (listeners[event] ??= []).push(listener),
    save_changes() {},
    send() {},
  };
}

for (const el of document.querySelectorAll("[data-explorer]"))
  module.then(({ default: { render } }) => render({ model: modelOf(models[el.dataset.explorer]), el }));
