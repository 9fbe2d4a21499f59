"""Boxes to masks for whole datasets: conversion, signs of quality, review, and export to other tools."""
