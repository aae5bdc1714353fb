"""Golden images in the making: built by virt-install, and tried out by canaries, beside any daemon.

What is made for that is kept in a journal of the workshop's own, so that whatever a killed run left is removed by the
next one.
"""
