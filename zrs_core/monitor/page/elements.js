// Elements for what is to be shown. Whatever a server says becomes text, and is never parsed.

const SVG = "http://www.w3.org/2000/svg";

// An HTML element; children are elements, what becomes text, null for nothing, or arrays of these.
export function element(name, attributes, ...children) {
  return filled(document.createElement(name), attributes, children);
}

// The same for a drawing.
export function drawn(name, attributes, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null) made.setAttribute(name, value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null));
  return made;
}

// Make the container hold these. What is the same stays as it is, so that a selection survives, and
// a screen reader is told of what has changed alone.
export function show(container, ...wanted) {
  wanted.forEach((node, index) => {
    const there = container.childNodes[index];
    if (typeof node === "string") node = document.createTextNode(node);
    if (!there) container.append(node);
    else if (there.nodeName !== node.nodeName) there.replaceWith(node);
    else if (node.nodeType === Node.TEXT_NODE) {
      if (there.data !== node.data) there.data = node.data;
    } else {
      for (const { name } of [...there.attributes]) {
        if (!node.hasAttribute(name)) there.removeAttribute(name);
      }
      for (const { name, value } of node.attributes) {
        if (there.getAttribute(name) !== value) there.setAttribute(name, value);
      }
      show(there, ...node.childNodes);
    }
  });
  while (container.childNodes.length > wanted.length) container.lastChild.remove();
}
