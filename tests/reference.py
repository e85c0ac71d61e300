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
