"""The verbs of ShiftedTemplateEM about places, templates and missing pixels."""

import math
from functools import partial

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from skem._base.em import EMEstimator
from skem._base.estimator import check_is_fitted
from skem._base.input import check_codes, check_count
from skem._base.streams import rowwise
from skem._rows.parts import chunks
from skem._typing import Array, Indices
from skem.template._align import align
from skem.template._model import Params, ShiftedTemplate
from skem.template._places import Modes, amplitudes, modes, places


class TemplateVerbs(EMEstimator):
    """What a fitted ShiftedTemplateEM says of images."""

    @rowwise
    def predict(self, X: ArrayLike) -> Indices:
        """Return the most probable shift of the template in each image.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or a stack of images
            The images; NaN marks a missing pixel.

        Returns
        -------
        ndarray of shape (n_samples,)
            The column of the template's left edge. If the template moves along two axes, the
            flat index of its top left corner in ``shift_shape_``. If absence is more probable
            than any shift, -1. With several templates, the most probable shift of the most
            probable template, see ``predict_class``.
        """
        return self._modes(X).shifts

    @rowwise
    def predict_class(self, X: ArrayLike) -> Indices:
        """Return the most probable template of each image.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or a stack of images
            The images; NaN marks a missing pixel.

        Returns
        -------
        ndarray of shape (n_samples,)
            The index of the template in ``templates_``; its probability is summed over the
            shifts. -1 where ``predict`` returns -1.
        """
        return self._modes(X).classes

    def _modes(self, X: ArrayLike) -> Modes:
        n_shifts = math.prod(self.shift_shape_) if hasattr(self, "shift_shape_") else 0
        posterior = self.predict_proba(X)
        return modes(posterior, self._options["n_templates"], n_shifts)

    @rowwise
    def shifts(self, X: ArrayLike, subpixel: bool = False) -> Array:
        """Return the place of the template in each image, in pixels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or a stack of images
            The images; NaN marks a missing pixel.
        subpixel : bool, default=False
            Whether to interpolate between pixels: the vertex of the parabola through the
            log-likelihoods of the shift that ``predict`` returns and of its two neighbors.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, 2)
            The column of the template's left edge; the row and the column of its top left
            corner if the template moves along two axes. NaN where the template is absent.
        """
        found = self._map_rows(X, partial(places, subpixel=subpixel), np.float64)
        return found[:, 0] if found.shape[1] == 1 else found

    @rowwise
    def amplitudes(self, X: ArrayLike) -> Array:
        """Return the expected amplitude of the template in each image.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or a stack of images
            The images; NaN marks a missing pixel.

        Returns
        -------
        ndarray of shape (n_samples,)
            The posterior mean of the amplitude, given that a template is present. It is 1
            on average. With ``absent=True``, ignore the values of images for which ``predict``
            returns -1.

        Raises
        ------
        ValueError
            If the amplitude is fixed.
        """
        check_is_fitted(self)
        if not self._options["free_amplitude"]:
            raise ValueError(
                "amplitudes needs a fit with amplitude='free', but the amplitude was fixed."
            )
        return self._map_rows(X, amplitudes)

    @rowwise
    def reconstruct(self, X: ArrayLike) -> Array:
        """Return the expected noise-free images given X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or a stack of images
            The images; NaN marks a missing pixel.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            ``inverse_transform(transform(X))``; with free amplitudes, the template is
            multiplied by the expected amplitude.
        """
        check_is_fitted(self)
        if self._options["free_amplitude"]:
            return self._map_rows(X, ShiftedTemplate.reconstruct)
        return self.inverse_transform(self.transform(X))

    @rowwise
    def inverse_transform(self, X: ArrayLike) -> Array:
        """Return the expected noise-free images given the probabilities of their shifts.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_categories)
            Probabilities of the shifts, as ``transform`` returns them: of (template, shift)
            in C order if there are several templates, and of absence in the last column.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            The images sum_d X[:, d] M_d. All amplitudes are 1.
        """
        check_is_fitted(self)
        code = check_codes(X, len(self.shift_prior_), "category of shifts")
        model = self._fitted_model()
        params = self._params(model)
        images = [
            model.expected(params, code[part].astype(float))
            for part in chunks(len(code), model.row_size)
        ]
        return np.concatenate(images).astype(code.dtype, copy=False)

    @rowwise
    def impute(self, X: ArrayLike) -> Array:
        """Return X with missing pixels replaced by their conditional expectation.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or a stack of images
            The images; NaN marks a missing pixel.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            The complete images.
        """
        return self._map_rows(X, ShiftedTemplate.impute)

    @rowwise
    def align(self, X: ArrayLike) -> Array:
        """Return the window of each image that contains the template, averaged over shifts.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or a stack of images
            The images; NaN marks a missing pixel.

        Returns
        -------
        ndarray of shape (n_samples, template_height * template_width [* channels])
            The posterior mean of the window's pixels, given that the template is
            present. Missing pixels are replaced by those of the template.
        """
        return self._map_rows(X, align)

    def sample(
        self,
        n_samples: int = 1,
        random_state: int | np.random.RandomState | None = None,
    ) -> tuple[Array, Indices]:
        """Draw images from the fitted model.

        Parameters
        ----------
        n_samples : int, default=1
            The number of images to draw.
        random_state : int, RandomState or None, default=None
            Seed of this call; None means that of the estimator.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            The images.
        shifts : ndarray of shape (n_samples,) or (n_samples, 2)
            The shift of each image, numbered as by ``predict``; -1 if the template is absent.
            With several templates, the template and the shift.
        """
        check_is_fitted(self)
        check_count("n_samples", n_samples)
        rng = check_random_state(self._seed_of(random_state))
        model = self._fitted_model()
        params = self._params(model)
        drawn = rng.choice(model.n_categories, size=n_samples, p=self.shift_prior_)
        found = modes(
            np.eye(model.n_categories)[drawn], model.n_templates, model.windows.n_shifts
        )
        parts = [
            self._drawn(model, params, drawn[part], rng)
            for part in chunks(n_samples, model.row_size)
        ]
        X = np.concatenate(parts).astype(self._templates().dtype, copy=False)
        if model.n_templates == 1:
            return X, found.shifts
        return X, np.column_stack([found.classes, found.shifts])

    def _drawn(
        self,
        model: ShiftedTemplate,
        params: Params,
        categories: Indices,
        rng: np.random.RandomState,
    ) -> Array:
        """Return an image (n, n_features) of each category."""
        code = np.zeros((len(categories), model.n_categories))
        code[np.arange(len(code)), categories] = 1
        amplitude = None
        if params.amplitude_var is not None:
            std = model.windows.broadcast(np.sqrt(params.amplitude_var))
            own = rng.normal(size=len(code)).reshape(-1, *[1] * (model.windows.n_axes + 1))
            amplitude = 1 + std * own
        X = model.expected(params, code, amplitude)
        noise: Array = rng.normal(scale=self.noise_std_, size=X.shape)
        if params.spectrum is not None:
            noise = model.colored(noise, params.spectrum)
        return X + noise
