"""The fitted attributes of the mixture: how they are kept, and the model that they describe."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from skem._base.em import EMEstimator
from skem._base.estimator import check_is_fitted
from skem._base.places import hosted, put
from skem._rows.arrays import Elsewhere
from skem._rows.parts import Rows, chunks
from skem._typing import AnyArray
from skem.mixture._arrays import ON_DEVICE, PlacedGroup
from skem.mixture._background import BackgroundMixture, density_of_fit, shown_background
from skem.mixture._covariances import Layout
from skem.mixture._fixed import n_free
from skem.mixture._model import Mixture, Stats
from skem.mixture._params import Fixed, Params, Prior, digests_of, params_of, public_values
from skem.mixture._prior import flat_prior


class FittedMixture(EMEstimator):
    """What a fitted mixture keeps."""

    def _attributes(self, model: Mixture, params: Params, stats: Stats) -> dict[str, Any]:
        values = public_values(params, single=model.single)
        values = put(values, getattr(self, "_place", None))
        return {
            **values,
            "_covariance_type": model.layout.covariance_type,
            "_prior": vars(model.prior),
            "_scale": model.scale.tolist(),
            "_reg_covar": model.reg_covar,
            "_fixed": vars(model.fixed) if model.fixed else None,
            **shown_background(model, params),
            "_digests": digests_of(hosted(values)),
        }

    def _fitted_model(self) -> Mixture:
        """Return the fitted model, with a flat prior if the user set the parameters."""
        means = np.asarray(hosted(self.means_))
        kind: str = getattr(self, "_covariance_type", None) or self.covariance_type
        layout, single = Layout(kind, *means.shape), means.dtype == np.float32
        if not hasattr(self, "_prior"):
            return Mixture(layout, flat_prior(layout), np.ones(means.shape[1]), single=single)
        prior, masks = Prior(**hosted(self._prior)), hosted(getattr(self, "_fixed", None))
        fixed, scale = Fixed(**masks) if masks else None, np.asarray(self._scale)
        model = Mixture(layout, prior, scale, self._reg_covar, single, fixed=fixed)
        density = density_of_fit(self)
        return model if density is None else BackgroundMixture(**vars(model), density=density)

    def _params(self, model: Mixture) -> Params:
        """Return the parameters that the fitted attributes describe."""
        own = {name: hosted(value) for name, value in vars(self).items() if name[-1] == "_"}
        return params_of(model.layout, own, self._set_by_hand())

    def _set_by_hand(self) -> set[str]:
        """Return the names of the attributes that were set after the fit."""
        digests = getattr(self, "_digests", {})
        found = digests_of({name: hosted(getattr(self, name, None)) for name in digests})
        return {name for name, digest in digests.items() if found[name] != digest}

    def _n_parameters(self) -> int:
        model = self._fitted_model()
        own = int(isinstance(model, BackgroundMixture))
        return own + n_free(model.layout, model.fixed, np.asarray(hosted(self.weights_)) > 0)

    @property
    def _n_features_out(self) -> int:
        has_background = getattr(self, "_background", None) is not None
        return int(np.shape(self.weights_)[0]) + has_background

    def _map_rows(
        self,
        X: ArrayLike,
        function: Callable[[Any, Any, Any], AnyArray],
        dtype: DTypeLike | None = None,
    ) -> AnyArray:
        if not isinstance(X, Elsewhere):
            return super()._map_rows(X, function, dtype)
        if function.__name__ not in ON_DEVICE:
            X.refuse("this method")
        check_is_fitted(self)
        rows = self._check_rows(X, reset=False)
        self._refuse_elsewhere(rows)
        model = self._fitted_model()
        params = self._params(model)
        resolved = model.dtype_for(params, rows.working_dtype)

        def of_chunk(part: slice) -> Any:
            (group,) = model.rows(rows.array[part], resolved)
            if not isinstance(group, PlacedGroup):  # the device has no float64
                return X.place.put(function(model, params, [group]))
            return group.apply(function, model, params)

        parts = map(of_chunk, chunks(len(rows), model.row_size))
        found = X.place.xp.concat(list(parts))
        is_float = X.place.xp.isdtype(found.dtype, "real floating")
        return X.place.cast(found, rows.dtype) if is_float else found

    def _refuse_elsewhere(self, rows: Rows, **beside: Any) -> None:
        """Refuse rows on a device if there is something that passes there do not know."""
        for name, value in (
            ("connectivity", self.connectivity),
            ("background", self.background),
            *beside.items(),
        ):
            if value is not None:
                rows.refuse(name)
