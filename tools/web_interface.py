"""The local page itself, made with Gradio: what visitors see and choose.

Gradio reports to its makers and keeps files elsewhere unless its environment variables are set
before this module is imported, which tools/web_page.py does.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import fastapi
import gradio as gr

from tools.web_deraining import KEPT_SECONDS, Deraining, make_examples, remove_old
from utils.errors import UserError
from utils.inference.photos import SUFFIXES

MAX_WAITING = 20  # visitors
STYLE, SCRIPT = (Path(__file__).with_name(f"web_page.{suffix}") for suffix in ("css", "js"))


def build_application(
    deraining: Deraining, folder: Path, port: int, max_megabytes: int
) -> fastapi.FastAPI:
    """The page as an ASGI application; all pictures are kept in ``folder``."""
    page = build_page(deraining, folder)
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=1, api_open=False)
    return gr.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None),
        page,
        path="/",
        server_name="127.0.0.1",
        server_port=port,
        footer_links=[],
        run_history=False,  # it would be kept in the browser
        max_file_size=f"{max_megabytes}mb",
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        # System fonts; Gradio's own themes load theirs from Google.
        theme=gr.themes.Default(
            primary_hue="blue",
            font=["system-ui", "sans-serif"],
            font_mono=["ui-monospace", "monospace"],
        ),
        css_paths=STYLE,
        head=f"<script>{SCRIPT.read_text(encoding='utf-8')}</script>",
    )


def build_page(deraining: Deraining, folder: Path) -> gr.Blocks:
    examples = make_examples(folder / "examples")

    def derain(
        photo: str | None,
        name: str,
        strength: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  (this is how Gradio passes it)
    ) -> tuple[tuple[str, str], gr.DownloadButton, str]:
        if photo is None:
            raise gr.Error("Drop a photo first, or choose an example.", print_exception=False)
        remove_old(folder, KEPT_SECONDS)  # Gradio removes its own copies at the same age
        results = Path(tempfile.mkdtemp(prefix="results-", dir=folder))

        def for_visitor(sentence: str) -> str:
            return sentence.replace(photo, Path(photo).name)

        def show(done: int, total: int) -> None:
            progress((done, total), desc="Deraining", unit="tiles")

        progress(0, desc="Reading")
        try:
            before, after, notes = deraining(Path(photo), name, strength, results, show)
        except UserError as error:
            raise gr.Error(for_visitor(str(error)), print_exception=False) from None
        button = gr.DownloadButton(value=str(after), interactive=True)
        return (str(before), str(after)), button, "\n\n".join(map(for_visitor, notes))

    def choose(event: gr.SelectData) -> str:
        return str(examples[event.index])

    names = list(deraining.weights)
    with gr.Blocks(
        title="Petrichor",
        analytics_enabled=False,
        delete_cache=(600, KEPT_SECONDS),
        fill_width=True,
    ) as page:
        gr.Markdown("# Petrichor\nRemoves rain from photographs, on this machine only.")
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=1, min_width=300):
                photo = gr.File(
                    label="Photo", file_types=["image", *SUFFIXES], height=120, elem_id="photo"
                )
                # for the message of web_page.js about videos
                gr.HTML('<p id="refused" role="status"></p>', elem_id="refused-block")
                gr.Markdown("or an example:")
                gallery = gr.Gallery(
                    [str(path) for path in examples],
                    show_label=False,
                    columns=len(examples),
                    allow_preview=False,
                    interactive=False,
                    buttons=[],
                    elem_id="examples",
                )
                network = gr.Dropdown(names, value=names[0], label="Network", elem_id="network")
                strength = gr.Slider(0, 1, value=1, step=0.05, label="Strength")
                start = gr.Button("Derain", variant="primary", elem_id="derain")
                download = gr.DownloadButton("Download PNG", interactive=False, elem_id="download")
            with gr.Column(scale=2, min_width=300):
                slider = gr.ImageSlider(
                    label="Rainy | restored (the wheel zooms)",
                    interactive=False,
                    max_height=640,
                    buttons=["fullscreen"],
                    elem_id="compare",
                )
                notes = gr.Markdown(elem_id="notes")
        gallery.select(choose, None, photo)
        start.click(derain, [photo, network, strength], [slider, download, notes])
    return page
