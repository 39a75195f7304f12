// Unpacks plotly.js, and then draws; until it has, and where it cannot, still figures stand there.
addEventListener("DOMContentLoaded", async () => {
  const packed = atob(document.getElementById("plotly-packed").textContent);
  const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  run(await new Response(stream).text());
  document.documentElement.classList.add("drawn");
  document.querySelectorAll('script[type="text/plotly"]').forEach((script) => run(script.textContent));
  function run(text) {
    const script = document.createElement("script");
    script.textContent = text;
    document.head.append(script);
  }
});
