"""The shifted-template model written as plainly as possible, to test against."""

import numpy as np
from scipy.stats import norm


def means(template, background):
    """Clean images (n_shifts, H, W, C), one for each shift in C order."""
    (h, w), (height, width) = template.shape[:2], background.shape[:2]
    out = []
    for row in range(height - h + 1):
        for column in range(width - w + 1):
            image = background.copy()
            image[row : row + h, column : column + w] = template
            out.append(image)
    return np.array(out)


def log_joint(images, template, background, noise_std, prior):
    """log p(x_k, d) (n, n_categories); NaN pixels drop out; absence comes last."""
    clean = means(template, background)
    if len(prior) > len(clean):
        clean = np.concatenate([clean, background[None]])
    out = np.empty((len(images), len(clean)))
    for k, image in enumerate(images):
        for d, mean in enumerate(clean):
            out[k, d] = np.nansum(norm.logpdf(image, mean, noise_std))
    with np.errstate(divide="ignore"):
        return out + np.log(prior)


def m_step(images, weight, posterior, template, background):
    """Weighted means of what each pixel shows; unseen pixels keep their value."""
    (h, w), (height, width) = template.shape[:2], background.shape[:2]
    n_columns = width - w + 1
    n_shifts = (height - h + 1) * n_columns
    new_template, new_background = template.copy(), background.copy()
    f_num, f_den = np.zeros_like(template), np.zeros_like(template)
    b_num, b_den = np.zeros_like(background), np.zeros_like(background)
    for image, q in zip(images, weight[:, None] * posterior, strict=True):
        seen, pixels = ~np.isnan(image), np.nan_to_num(image)
        for d, share in enumerate(q):
            outside = np.ones((height, width), bool)
            if d < n_shifts:
                row, column = divmod(d, n_columns)
                place = np.s_[row : row + h, column : column + w]
                f_num += share * pixels[place]
                f_den += share * seen[place]
                outside[place] = False
            mask = outside.reshape(height, width, 1) & seen
            b_num += share * mask * pixels
            b_den += share * mask
    threshold = 1e-8 * weight.sum()
    np.divide(f_num, f_den, out=new_template, where=f_den > threshold)
    np.divide(b_num, b_den, out=new_background, where=b_den > threshold)
    clean = means(new_template, new_background)
    if posterior.shape[1] > n_shifts:
        clean = np.concatenate([clean, new_background[None]])
    square = sum(
        weight[k] * posterior[k, d] * np.nansum((images[k] - clean[d]) ** 2)
        for k in range(len(images))
        for d in range(len(clean))
    )
    n_pixels = (weight[:, None, None, None] * ~np.isnan(images)).sum()
    prior = (weight @ posterior) / weight.sum()
    return new_template, new_background, np.sqrt(square / n_pixels), prior


# -- several templates, amplitudes, added templates, stationary noise, periodic images ---------


def patterns(templates, image_shape, cyclic):
    """Each template alone at each shift, and where it is: (n_templates * n_shifts, H, W, C)."""
    height, width = image_shape[:2]
    h, w = templates.shape[1:3]
    rows = height if cyclic and h < height else height - h + 1
    columns = width if cyclic else width - w + 1
    shown, where = [], []
    for template in templates:
        for row in range(rows):
            for column in range(columns):
                image, mask = np.zeros(image_shape), np.zeros(image_shape, bool)
                for i in range(h):
                    for j in range(w):
                        place = (row + i) % height, (column + j) % width
                        image[place], mask[place] = template[i, j], True
                shown.append(image)
                where.append(mask)
    return np.array(shown), np.array(where)


def noise_covariance(spectrum, image_shape, n_axes):
    """Covariance of the pixels (H*W*C, H*W*C) of periodic noise that axes of movement share."""
    height, width, channels = image_shape
    space = (height, width)[-n_axes:]
    correlation = np.fft.irfftn(spectrum, s=space, axes=range(n_axes))
    places = list(np.ndindex(height, width, channels))
    out = np.zeros((len(places), len(places)))
    for a, (i, j, c) in enumerate(places):
        for b, (k, m, d) in enumerate(places):
            if c != d or (n_axes == 1 and i != k):
                continue
            lag = ((i - k) % height, (j - m) % width)[-n_axes:]
            out[a, b] = correlation[lag]
    return out


def variant_log_joint(
    images, templates, background, covariance, prior, *, cyclic, additive, amplitude_var
):
    """log p(x_k, c, d) by dense Gaussians; absence comes last if the prior has it."""
    shown, where = patterns(templates, background.shape, cyclic)
    per_class = len(shown) // len(templates)
    out = np.full((len(images), len(prior)), np.nan)
    for k, image in enumerate(images):
        seen = ~np.isnan(image).ravel()
        for d in range(len(prior)):
            mean, own = background, covariance
            if d < len(shown):
                behind = background if additive else np.where(where[d], 0, background)
                mean = behind + shown[d]
                variance = amplitude_var[d // per_class]
                own = covariance + variance * np.outer(shown[d], shown[d])
            residual = (image - mean).ravel()[seen]
            own = own[np.ix_(seen, seen)]
            quadratic = residual @ np.linalg.solve(own, residual)
            out[k, d] = -(quadratic + np.linalg.slogdet(2 * np.pi * own)[1]) / 2
    with np.errstate(divide="ignore"):
        return out + np.log(prior)
