"""The File Explorer: finds the text files of a folder and reads them, so that later steps meet text alone."""
