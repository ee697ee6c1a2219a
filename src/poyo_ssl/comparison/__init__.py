"""Everything behind ``poyo-ssl run``: arms, fits, scores and what they leave behind."""
