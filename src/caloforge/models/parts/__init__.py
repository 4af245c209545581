"""What several models share. A part imports no model; of `models` it knows the contracts alone (`models.base`)."""
