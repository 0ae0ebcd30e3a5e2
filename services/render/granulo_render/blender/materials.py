# SPDX-License-Identifier: GPL-3.0-or-later
"""Materials: light from ambient occlusion, with or without edge effect and shining through.

All of them emit: no lamp and no bounce is needed, so a pixel is one ray and its occlusion rays.
"""

import bpy

from granulo_core.imaging.look import Look

OPENNESS = "openness"
PARTICLE = "particle"
SUBSTRATE = "substrate"
_OCCLUSION = "occlusion"
_TRANSPARENCY = "transparency"


def make_all() -> None:
    """Make the three materials of a Blender file; they stay when no particle uses them."""
    look = Look()
    for name in (OPENNESS, PARTICLE, SUBSTRATE):
        material = bpy.data.materials.new(name)
        material.use_nodes = True
        material.use_fake_user = True
        material.cycles.emission_sampling = "NONE"  # else every triangle is listed as a lamp
        material.node_tree.nodes.clear()
        graph = _Graph(material.node_tree)
        open_ = graph.occlusion()
        if name == OPENNESS:
            graph.finish(graph.emit(open_))
            continue
        # As `granulo_core.imaging.shading` darkens gaps and brightens edges (M6).
        light = graph.math(
            "MULTIPLY_ADD", open_, look.occlusion_strength, 1.0 - look.occlusion_strength
        )
        if name == SUBSTRATE:
            graph.finish(graph.emit(graph.math("MULTIPLY", light, look.substrate_level)))
            continue
        level = graph.rim(look)
        glow = graph.emit(graph.math("MULTIPLY", light, level))
        graph.finish(graph.shine_through(glow))


def tune(*, reach: float, rays: int, transparency: float) -> None:
    """Set the occlusion's reach in Blender units and its rays, and how much shines through."""
    for name in (OPENNESS, PARTICLE, SUBSTRATE):
        nodes = bpy.data.materials[name].node_tree.nodes
        nodes[_OCCLUSION].inputs["Distance"].default_value = reach
        nodes[_OCCLUSION].samples = rays
    nodes = bpy.data.materials[PARTICLE].node_tree.nodes
    nodes[_TRANSPARENCY].outputs[0].default_value = transparency


class _Graph:
    """Short names for the nodes of one material."""

    def __init__(self, tree: bpy.types.NodeTree) -> None:
        self._tree = tree

    def occlusion(self) -> bpy.types.NodeSocket:
        node = self._tree.nodes.new("ShaderNodeAmbientOcclusion")
        node.name = _OCCLUSION
        return node.outputs["AO"]

    def math(self, operation: str, *operands: bpy.types.NodeSocket | float) -> bpy.types.NodeSocket:
        node = self._tree.nodes.new("ShaderNodeMath")
        node.operation = operation
        for socket, operand in zip(node.inputs, operands, strict=False):
            if isinstance(operand, float):
                socket.default_value = operand
            else:
                self._tree.links.new(operand, socket)
        return node.outputs[0]

    def rim(self, look: Look) -> bpy.types.NodeSocket:
        """Signal of an open surface: ``1 / cos`` of its slope to a power, up to a cap."""
        weight = self._tree.nodes.new("ShaderNodeLayerWeight")
        weight.inputs["Blend"].default_value = 0.5  # where it is 1 - cos
        cosine = self.math("MAXIMUM", self.math("SUBTRACT", 1.0, weight.outputs["Facing"]), 0.02)
        ratio = self.math("MINIMUM", self.math("POWER", cosine, -look.rim_power), look.rim_cap)
        gain = look.rim_strength / (look.rim_cap - 1.0)
        edge = self.math("MULTIPLY_ADD", ratio, gain, look.particle_level - gain)
        darker = look.particle_level * look.tilt_darkening
        return self.math("MULTIPLY_ADD", self.math("SUBTRACT", cosine, 1.0), darker, edge)

    def emit(self, strength: bpy.types.NodeSocket) -> bpy.types.NodeSocket:
        node = self._tree.nodes.new("ShaderNodeEmission")
        self._tree.links.new(strength, node.inputs["Strength"])
        return node.outputs[0]

    def shine_through(self, glow: bpy.types.NodeSocket) -> bpy.types.NodeSocket:
        """Mix with what lies below; a particle counts once, so its far side lets all through."""
        share = self._tree.nodes.new("ShaderNodeValue")
        share.name = _TRANSPARENCY
        back = self._tree.nodes.new("ShaderNodeNewGeometry").outputs["Backfacing"]
        mix = self._tree.nodes.new("ShaderNodeMixShader")
        clear = self._tree.nodes.new("ShaderNodeBsdfTransparent")
        self._tree.links.new(self.math("MAXIMUM", share.outputs[0], back), mix.inputs[0])
        self._tree.links.new(glow, mix.inputs[1])
        self._tree.links.new(clear.outputs[0], mix.inputs[2])
        return mix.outputs[0]

    def finish(self, shader: bpy.types.NodeSocket) -> None:
        output = self._tree.nodes.new("ShaderNodeOutputMaterial")
        self._tree.links.new(shader, output.inputs["Surface"])
