"""The page itself, made of Gradio's components; what they show comes from a `Session`."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mrcnn.app.session import Choice, NamedModel, Session
from mrcnn.inference.extras import require

LARGEST_FILE = "2gb"
CACHE_SECONDS = (3600, 86400)  # how often uploads are looked through, and how old they become
CLICK = "() => setTimeout(() => document.querySelector('#{} a, #{} button, a#{}, button#{}').click(), 300)"
FONTS = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")  # of the machine: the page fetches nothing


def build_page(models: Sequence[NamedModel], min_score: float = 0.5) -> Any:
    """The page as `gradio.Blocks`.

    Args:
        models: one, or two to compare side by side.
        min_score: where the slider stands at first.

    Raises ImportError, with the command that installs it, without Gradio.
    """
    gr = require("gradio", "app")
    least = max(min(model.model.config.DETECTION_MIN_CONFIDENCE for model in models), 0.0)
    with gr.Blocks(title="Mask R-CNN", analytics_enabled=False, delete_cache=CACHE_SECONDS, fill_width=True) as page:
        session = gr.State(Session(models))
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                files = gr.File(label="Drop images here", file_count="multiple", height=140, elem_id="files")
                problems = gr.Textbox(label="Not an image", visible=False, interactive=False, elem_id="problems")
                image = gr.Dropdown([], label="Image", elem_id="image")
                score = gr.Slider(least, 1, max(min_score, least), step=0.01, label="Confidence", elem_id="score")
                classes = gr.Dropdown(
                    Session(models).all_names(), multiselect=True, label="Classes (none: all)", elem_id="classes"
                )
                which = gr.Radio(
                    [(model.name, i) for i, model in enumerate(models)],
                    value=0,
                    label="Correct and download the results of",
                    visible=len(models) > 1,
                    elem_id="which",
                )
                instance = gr.Dropdown([], label="Object (or click it)", elem_id="instance")
                name = gr.Dropdown([], label="Is a", allow_custom_value=True, elem_id="name")
                correct = gr.Button("Correct the class", size="md", elem_id="correct")
                with gr.Row():
                    as_json = gr.Button("JSON", size="md", variant="primary", min_width=100, elem_id="json")
                    as_cut_outs = gr.Button("Cut-outs", size="md", variant="primary", min_width=100, elem_id="cutouts")
                made = [gr.DownloadButton(visible="hidden", elem_id=f"made-{kind}") for kind in ("json", "cutouts")]
            with gr.Column(scale=4), gr.Row():
                pictures = [
                    gr.Image(
                        label=model.name,
                        interactive=False,
                        format="jpeg",
                        buttons=["fullscreen"],
                        elem_id=f"picture{i}",
                    )
                    for i, model in enumerate(models)
                ]
        _Events(gr, session, [image, score, classes, which], [*pictures, instance, classes, name]).connect(
            files, problems, pictures, instance, name, correct, (as_json, as_cut_outs), made
        )
    return page


class _Events:
    """What happens when a visitor does something.

    Args:
        chosen: the image, score, classes and model that are chosen. shown: what is drawn anew when they change.
    """

    def __init__(self, gr: Any, session: Any, chosen: list[Any], shown: list[Any]) -> None:
        self.gr, self.session, self.chosen, self.shown = gr, session, chosen, shown

    def connect(
        self,
        files: Any,
        problems: Any,
        pictures: list[Any],
        instance: Any,
        name: Any,
        correct: Any,
        buttons: Sequence[Any],
        made: list[Any],
    ) -> None:
        image, score, classes, which = self.chosen
        inputs = [self.session, *self.chosen]
        show = {"inputs": inputs, "outputs": self.shown, "api_visibility": "private"}
        files.change(
            self.take, [files, self.session], [image, problems], api_visibility="private", trigger_mode="always_last"
        ).then(self.show, **show)
        for component in (image, score, classes, which):
            component.input(self.show, **show, trigger_mode="always_last", show_progress="minimal")
        correct.click(self.correct, [*inputs, instance, name], None, api_visibility="private").success(
            self.show, **show
        )
        for i, picture in enumerate(pictures):
            picture.select(self._picker(i), inputs, [which, instance], api_visibility="private")
        writers = self._writer("write_json", "annotations.json"), self._writer("write_cut_outs", "cutouts.zip")
        for button, hidden, write in zip(buttons, made, writers, strict=True):
            done = button.click(write, inputs, hidden, api_visibility="private")
            done.success(None, js=CLICK.replace("{}", hidden.elem_id))

    def take(self, files: list[str] | None, session: Session) -> tuple[Any, Any]:
        """Images were dropped, or taken away."""
        found = session.take([str(file) for file in files or []])
        labels = [(label, i) for i, label in enumerate(session.labels)]
        return (
            self.gr.Dropdown(labels, value=0 if labels else None),
            self.gr.Textbox("\n".join(found), visible=bool(found), lines=min(len(found), 5)),
        )

    def show(self, session: Session, image: int | None, score: float, classes: list[str], which: int) -> list[Any]:
        """Draws the results of each model, and lists the instances."""
        gr, empty = self.gr, image is None or not 0 <= image < len(session.paths)
        choice, names = Choice(score, classes or ()), session.all_names()
        pictures = [
            None if empty else self._guarded(session.picture, image, i, choice) for i in range(len(session.models))
        ]
        instances = [] if empty else self._guarded(session.instances, image, which, choice)
        return [
            *pictures,
            gr.Dropdown(instances, value=instances[0][1] if instances else None),
            gr.Dropdown(names, value=[known for known in classes or () if known in names]),
            gr.Dropdown(names),
        ]

    def correct(
        self,
        session: Session,
        image: int | None,
        score: float,
        classes: list[str],
        which: int,
        instance: int | None,
        name: str | None,
    ) -> None:
        """Gives an instance another class."""
        if image is None or instance is None or not name:
            raise self.gr.Error("Choose an object, and what it is", duration=5)
        self._guarded(session.correct, image, which, int(instance), str(name))

    def _picker(self, which: int) -> Callable[..., Any]:
        gr = self.gr

        def pick(session: Session, image: int | None, score: float, classes: list[str], _: int, event: Any) -> Any:
            """Chooses the instance that was clicked."""
            if image is None:
                return gr.skip(), gr.skip()
            choice = Choice(score, classes or ())
            number = session.at(image, which, choice, *event.index)
            if number is None:
                return gr.skip(), gr.skip()
            return which, gr.Dropdown(session.instances(image, which, choice), value=number)

        pick.__annotations__["event"] = gr.SelectData  # by which Gradio knows what to pass
        return pick

    def _writer(self, method: str, file: str) -> Callable[..., str]:
        """What a button does: writes a file by a method of the session, with a bar on the page."""
        gr = self.gr

        def write(
            session: Session,
            image: int | None,
            score: float,
            classes: list[str],
            which: int,
            progress: Any = gr.Progress(),  # noqa: B008  (by which Gradio knows that there is a bar)
        ) -> str:
            if not session.paths:
                raise gr.Error("Drop images first", duration=5)
            images = iter(progress.tqdm(range(len(session.paths)), unit="images"))
            path = Path(tempfile.mkdtemp(prefix="mrcnn_")) / file
            step = lambda: next(images, None)  # noqa: E731
            return str(self._guarded(getattr(session, method), path, which, Choice(score, classes or ()), step))

        return write

    def _guarded(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """The call; an image that went bad, or that the model cannot take, becomes a message on the page."""
        try:
            return call(*arguments)
        except (ValueError, TypeError, OSError, NotImplementedError) as error:
            raise self.gr.Error(" ".join(str(error).split()), duration=None) from error


def serve(page: Any, host: str, port: int | None, open_browser: bool = False) -> Any:
    """Starts the server in threads of its own; returns its address.

    Args:
        host: 127.0.0.1 for this machine only. port: None for the first free one from 7860 on.

    Raises OSError for a port that is taken.
    """
    gr = require("gradio", "app")
    theme = gr.themes.Default(font=list(FONTS[0]), font_mono=list(FONTS[1]))
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        inbrowser=open_browser,
        prevent_thread_lock=True,
        quiet=True,
        theme=theme,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        enable_monitoring=False,
        max_file_size=LARGEST_FILE,
    )
    return address
