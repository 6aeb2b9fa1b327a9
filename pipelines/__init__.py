"""Second floor, Beam: many videos or photos at once; classical vision on one clip."""
