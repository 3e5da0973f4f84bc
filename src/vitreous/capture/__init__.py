"""Seeing attention in any model, and holding it as an operator."""
