"""Simulated data with known truth, and pictures that ship with the dependencies."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Bunch, check_random_state

__all__ = ["load_hidden_face", "make_shifted_templates"]


def make_shifted_templates(
    n_samples: int = 1000,
    *,
    template: ArrayLike | None = None,
    background: ArrayLike | None = None,
    image_shape: tuple[int, ...] = (20, 60),
    template_width: int = 20,
    template_height: int | None = None,
    noise_std: float = 0.5,
    shift_prior: ArrayLike | None = None,
    absent: float = 0.0,
    clip: tuple[float, float] | None = None,
    dtype: type = np.float64,
    random_state: int | np.random.RandomState | None = None,
) -> Bunch:
    """Simulate images in which a template hides at a random shift.

    x = M_d + noise, where M_d is the background with the template pasted at shift d.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of images.
    template : array-like of shape (height, width[, channels]), default=None
        The template; None draws a smooth random one of the sizes given below.
    background : array-like of shape (height, width[, channels]), default=None
        The background; None draws a smooth random one of shape ``image_shape``.
    image_shape : tuple of int, default=(20, 60)
        (height, width) or (height, width, channels), if ``background`` is None.
    template_width : int, default=20
        Width of the template in pixels, if ``template`` is None.
    template_height : int, default=None
        Height of the template in pixels, if ``template`` is None. None means the height of
        the image.
    noise_std : float, default=0.5
        Standard deviation of the noise. A random template or background has one of 1.
    shift_prior : array-like of shape (n_shifts,), default=None
        Probability of each shift, in C order; None means uniform.
    absent : float, default=0.0
        Probability that the template is absent from an image.
    clip : tuple of float, default=None
        (low, high) to clip the noisy pixels to, such as (0, 255).
    dtype : type, default=numpy.float64
        The dtype of X.
    random_state : int, RandomState or None, default=None
        Seed.

    Returns
    -------
    sklearn.utils.Bunch
        With ``X`` of shape (n_samples, n_features), ``shifts`` (n_samples,) with -1 for
        absent, ``template``, ``background``, ``image_shape``, ``template_width``,
        ``template_height`` and ``noise_std``.

    Raises
    ------
    ValueError
        If the template is larger than the background, or if a probability or a size is
        invalid.

    Examples
    --------
    >>> from skem.datasets import make_shifted_templates
    >>> data = make_shifted_templates(5, image_shape=(4, 9), template_width=3)
    >>> data.X.shape, data.shifts.shape
    ((5, 36), (5,))
    """
    if n_samples < 1 or noise_std < 0 or not 0 <= absent <= 1:
        raise ValueError(
            "n_samples must be at least 1, noise_std at least 0, and absent a probability, but "
            f"they are {n_samples}, {noise_std} and {absent}."
        )
    if np.dtype(dtype).kind != "f" and clip is None:
        raise ValueError(f"pixels of dtype {np.dtype(dtype)} need clip=(low, high).")
    rng = check_random_state(random_state)
    background = _smooth_image(image_shape, rng) if background is None else background
    background = np.asarray(background, dtype=float)
    if template is None:
        height = background.shape[0] if template_height is None else template_height
        template = _smooth_image((height, template_width, *background.shape[2:]), rng)
    template = np.asarray(template, dtype=float)
    shift_shape = _shift_shape(template, background)
    prior = _checked_prior(shift_prior, int(np.prod(shift_shape)))
    shifts = rng.choice(len(prior), size=n_samples, p=prior)
    shifts[rng.uniform(size=n_samples) < absent] = -1
    X = np.empty((n_samples, *background.shape), dtype)
    for image, shift in zip(X, shifts, strict=True):
        clean = background.copy()
        if shift >= 0:
            _paste(clean, template, *divmod(shift, shift_shape[1]))
        clean += rng.normal(scale=noise_std, size=clean.shape)
        image[...] = clean if clip is None else clean.clip(*clip)
    return Bunch(
        X=X.reshape(n_samples, -1),
        shifts=shifts,
        template=template,
        background=background,
        image_shape=background.shape,
        template_width=template.shape[1],
        template_height=template.shape[0],
        noise_std=noise_std,
    )


def _paste(
    image: NDArray[np.floating], template: NDArray[np.floating], row: int, column: int
) -> None:
    """Replace the pixels of a window by the template."""
    height, width = template.shape[:2]
    image[row : row + height, column : column + width] = template


def _shift_shape(template: NDArray[np.floating], background: NDArray[np.floating]) -> list[int]:
    """Return the numbers of row and column shifts of a template in a background."""
    shape = [
        outer - inner + 1
        for outer, inner in zip(background.shape[:2], template.shape[:2], strict=True)
    ]
    if min(shape) < 1 or template.shape[2:] != background.shape[2:]:
        raise ValueError(
            f"a template of shape {template.shape} does not fit in a background of shape "
            f"{background.shape}."
        )
    return shape


def _checked_prior(shift_prior: ArrayLike | None, n_shifts: int) -> NDArray[np.floating]:
    """Return the probabilities of the shifts; they are equal by default."""
    if shift_prior is None:
        return np.full(n_shifts, 1 / n_shifts)
    prior = np.asarray(shift_prior, dtype=float)
    if prior.shape != (n_shifts,) or (prior < 0).any() or not np.isclose(prior.sum(), 1):
        raise ValueError(
            f"shift_prior must be {n_shifts} probabilities that sum to 1, but it has shape "
            f"{prior.shape} and sum {prior.sum():g}."
        )
    return prior


def load_hidden_face(
    n_samples: int = 1000,
    *,
    noise_std: float = 400.0,
    clip: tuple[float, float] | None = (0.0, 255.0),
    shift_prior: ArrayLike | None = None,
    absent: float = 0.0,
    dtype: type = np.float32,
    random_state: int | np.random.RandomState | None = 0,
) -> Bunch:
    """Hide a portrait at a random place in noisy copies of a photograph.

    The portrait shows Grace Hopper in 100 rows and 73 columns; it ships with matplotlib. The
    photograph is china.jpg of scikit-learn, in 100 rows and 200 columns. Both are gray, from
    0 to 255. The function needs matplotlib and pillow.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of images.
    noise_std : float, default=400.0
        Standard deviation of the noise in gray levels, before clipping.
    clip : tuple of float, default=(0.0, 255.0)
        The range that noisy pixels are clipped to; None does not clip.
    shift_prior : array-like of shape (128,), default=None
        Probability of each column of the portrait's left edge; None means uniform.
    absent : float, default=0.0
        Probability that the portrait is absent from an image.
    dtype : type, default=numpy.float32
        The dtype of X.
    random_state : int, RandomState or None, default=0
        Seed.

    Returns
    -------
    sklearn.utils.Bunch
        The same fields as from :func:`make_shifted_templates`.

    Raises
    ------
    ImportError
        If matplotlib or pillow is not installed.

    Examples
    --------
    >>> from skem.datasets import load_hidden_face
    >>> data = load_hidden_face(10)
    >>> data.X.shape, data.template.shape, data.background.shape
    ((10, 20000), (100, 73), (100, 200))
    """
    for package, name in (("matplotlib", "matplotlib"), ("PIL", "pillow")):
        if find_spec(package) is None:
            raise ImportError(
                f"load_hidden_face needs {name}, which is not installed: run pip install "
                f"{name}."
            )
    from matplotlib.cbook import get_sample_data
    from PIL import Image
    from sklearn.datasets import load_sample_image

    file = get_sample_data("grace_hopper.jpg", asfileobj=False)
    with Image.open(file) as portrait:
        face = _gray(portrait, (73, 100))
    background = _gray(Image.fromarray(load_sample_image("china.jpg")), (200, 100))
    return make_shifted_templates(
        n_samples,
        template=face,
        background=background,
        noise_std=noise_std,
        shift_prior=shift_prior,
        absent=absent,
        clip=clip,
        dtype=dtype,
        random_state=random_state,
    )


def _gray(image: Any, size: tuple[int, int]) -> NDArray[np.floating]:
    """Return the largest centered part with the proportions of ``size``, resized."""
    from PIL import ImageOps

    return np.asarray(ImageOps.fit(image.convert("L"), size), dtype=float)


def _smooth_image(shape: Sequence[int], rng: np.random.RandomState) -> NDArray[np.floating]:
    """Return Gaussian noise, smoothed over 1.5 pixels and scaled to variance 1."""
    from scipy.ndimage import gaussian_filter

    image = gaussian_filter(rng.normal(size=shape), (1.5, 1.5, 0)[: len(shape)], mode="wrap")
    return (image - image.mean()) / (image.std() or 1.0)
