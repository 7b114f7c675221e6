"""Pretrained networks and what they give: published weights, initial weights, and the features of images.

May import `runs` and what is below it.
"""
