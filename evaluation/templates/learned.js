// One video speaks at a time.
document.addEventListener("play", (event) => {
  for (const other of document.querySelectorAll("video")) if (other !== event.target) other.pause();
}, true);
