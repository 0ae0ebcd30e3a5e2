# SPDX-License-Identifier: Apache-2.0
"""`granulo adapt`: an adaptation as two studies, their run, and what it gained."""
