// A dropped or chosen video is not uploaded; the page says at once how to restore it.

(() => {
  const VIDEO = /\.(mp4|m4v|mov|qt|3gp|3g2|mkv|webm|avi|wmv|asf|ts|mts|m2ts|mpe?g|vob|flv|f4v|ogv|mxf|dv)$/i;

  function check(event, files) {
    const place = document.querySelector("#refused");
    if (!place || !event.target.closest?.("#photo")) return;
    const video = [...(files ?? [])].find((file) => VIDEO.test(file.name));
    place.textContent = "";
    if (!video) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const name = video.name.replaceAll("'", "'\\''");
    place.textContent =
      `${video.name} is a video; this page takes photographs. For videos: ` +
      `python test.py --input '${name}'`;
  }

  // The capture phase comes before the page's own listeners.
  document.addEventListener("drop", (event) => check(event, event.dataTransfer?.files), true);
  document.addEventListener("change", (event) => check(event, event.target.files), true);
})();
