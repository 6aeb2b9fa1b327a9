"""Scenery: the brushes with which the sample landscapes are drawn (noise, terrain, light, fluids)."""
