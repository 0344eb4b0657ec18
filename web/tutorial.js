// How a page talks with embeds: it listens to their height, and sends them a new state.
const frames = [...document.querySelectorAll('iframe')];

addEventListener('message', (event) => {
  const frame = frames.find((candidate) => candidate.contentWindow === event.source);
  if (!frame || event.data?.source !== 'attention-lab') return;
  if (event.data.type === 'height') frame.style.height = `${Math.ceil(event.data.height) + 2}px`;
  if (event.data.type === 'ready') frame.dataset.ready = '';
});

for (const button of document.querySelectorAll('button[data-set]')) {
  button.addEventListener('click', () => {
    const message = { type: 'set', state: JSON.parse(button.dataset.set) };
    document.getElementById('window').contentWindow.postMessage(message, '*');
  });
}
