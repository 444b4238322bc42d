"""Episodes as videos: a camera in a process of its own, the numbers of the episode on each frame, MP4 and GIF."""
