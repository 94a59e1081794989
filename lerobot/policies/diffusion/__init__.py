"""Diffusion Policy: actions by denoising."""
