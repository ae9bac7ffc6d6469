"""Installs the packages `mrcnn` and `heads`, typed."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def requirements(section: str) -> list[str]:
    """The lines of one section of requirements.txt, so that every range stands in one place."""
    sections = re.split(r"^# --- (\w+)\n", (ROOT / "requirements.txt").read_text(), flags=re.MULTILINE)
    lines = dict(zip(sections[1::2], sections[2::2], strict=True))[section].splitlines()
    return [line for line in lines if line and not line.startswith("#")]


setup(
    name="mask-rcnn-keras",
    version=re.search(r'__version__ = "(.+)"', (ROOT / "mrcnn" / "__init__.py").read_text())[1],
    description="Mask R-CNN on Keras 3, with the mask branch swapped by name",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    author="the mask-rcnn-keras authors",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["mrcnn", "mrcnn.*", "heads", "heads.*"]),
    package_data={"mrcnn": ["py.typed"], "heads": ["py.typed"]},
    install_requires=requirements("package"),
    extras_require={
        # imaug brings opencv-python along, whose cv2 needs libGL and replaces the headless one. On a machine without
        # libGL: pip install --no-deps imaug, and the imgaug section of requirements.txt.
        "imgaug": ["imaug>=0.4.3,<0.5"],
        # KERAS_BACKEND=jax; for an NVIDIA GPU: pip install "jax[cuda12]"
        "jax": requirements("jax"),
        "test": requirements("tests"),
    },
)
