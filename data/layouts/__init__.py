"""What a data set's folder holds: which images are rainy, which are clean, what is neither.

``recognise`` finds the layout of a folder. Each layout has a file: ``two_folders`` (input/ and
target/), ``one_folder`` (told apart by the names of files), ``halves`` (side by side in one file),
``lists`` (text files). ``nearest`` words the refusal of a folder that follows none of them. The
words of the field's folder names are in utils/folder_words.py.
"""
