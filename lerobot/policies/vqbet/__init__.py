"""VQ-BeT: behaviour transformer whose actions are codes of a residual VQ-VAE."""
